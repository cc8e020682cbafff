"""A web page and an HTTP interface that label photographs."""

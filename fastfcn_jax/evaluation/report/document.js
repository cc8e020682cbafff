"use strict";
// The page is whole without this script, which adds the values under the pointer, the hint beside
// wide tables, and pictures at full size. Text is only ever set as text, never as markup.

const make = (tag, parent, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  parent?.append(element);
  return element;
};

const nearest = (list, distance) =>
  list.reduce((best, item) => (distance(item) < distance(best) ? item : best));

// A click, Enter or Space calls `act`.
const press = (element, act) => {
  element.tabIndex = 0;
  element.setAttribute("role", "button");
  element.addEventListener("click", act);
  element.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
};

const tip = make("div", undefined, undefined, "tip");
// Shows lines of text beside a point of the window: [text, class] each.
const say = (lines, x, y) => {
  tip.replaceChildren(...lines.map(([text, kind]) => make("div", undefined, text, kind)));
  document.body.append(tip);
  const wide = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
  const left = x + 14 + box.width < wide ? x + 14 : Math.max(x - 14 - box.width, 4);
  const top = Math.max(y - box.height - 10, 4);
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${top + scrollY}px`;
};
const hush = () => tip.remove();
addEventListener("keydown", event => { if (event.key === "Escape") hush(); });
addEventListener("pointerdown", event => {
  if (!event.target.closest?.("svg[data-area]")) hush();
});

// Where a pointer is in the units of the drawing.
const inside = (svg, event) => {
  const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  return [
    (event.clientX - box.left) * view.width / box.width,
    (event.clientY - box.top) * view.height / box.height,
  ];
};

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg");
  const [left, right, top, floor] = svg.dataset.area.split(" ").map(Number);
  const curves = [...svg.querySelectorAll(".curve")].map(group => {
    const values = group.dataset.values.split(" "), steps = group.dataset.steps.split(" ");
    const points = [...group.querySelector("polyline").points].map(
      (p, i) => ({ x: p.x, y: p.y, step: steps[i], value: values[i] }));
    return { group, points, name: group.dataset.name };
  });
  const guide = document.createElementNS(svg.namespaceURI, "line");
  guide.setAttribute("class", "guide");
  guide.setAttribute("y1", top);
  guide.setAttribute("y2", floor);
  const mark = chosen => {
    svg.classList.toggle("crowded", Boolean(chosen) && curves.length > 8);
    curves.forEach(c => c.group.classList.toggle("near", c === chosen));
    if (chosen) svg.append(chosen.group);  // in front of the others
  };
  let at = 0;  // the guide's place

  const show = (x, y) => {
    const seen = curves.filter(c => !c.group.classList.contains("off"));
    if (!seen.length) return;
    const points = seen.flatMap(c => c.points.map(p => ({ ...p, curve: c })));
    at = nearest(points, p => Math.abs(p.x - x)).x;
    guide.setAttribute("x1", at);
    guide.setAttribute("x2", at);
    svg.append(guide);
    const here = seen.map(c => ({ ...nearest(c.points, p => Math.abs(p.x - at)), curve: c }))
      .filter(p => Math.abs(p.x - at) < 4);
    const close = nearest(here, p => Math.abs(p.y - y));
    mark(curves.length > 1 ? close.curve : null);
    const shown = here.sort((p, q) => Math.abs(p.y - y) - Math.abs(q.y - y)).slice(0, 8)
      .sort((p, q) => p.y - q.y);
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const unit = svg.dataset.unit;
    say([
      [`step ${close.step}`],
      ...shown.map(p => [
        `${p.curve.name}: ${p.value}${unit}${p.step === close.step ? "" : ` (step ${p.step})`}`,
        p === close && shown.length > 1 ? "near" : ""]),
      ...(here.length > shown.length ? [[`and ${here.length - shown.length} more`]] : []),
    ], box.left + at * scale, box.top + close.y * scale);
  };
  const leave = () => { guide.remove(); hush(); mark(null); };
  for (const kind of ["pointermove", "pointerdown"]) {
    svg.addEventListener(kind, event => show(...inside(svg, event)));
  }
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") leave(); });
  svg.addEventListener("blur", leave);
  svg.tabIndex = 0;
  svg.addEventListener("keydown", event => {
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!side) return;
    event.preventDefault();
    const further = curves.flatMap(c => c.points.map(p => p.x)).filter(x => (x - at) * side > 0.01);
    const start = side > 0 ? left : right;
    show(guide.isConnected ? (further.length ? nearest(further, x => Math.abs(x - at)) : at) : start,
      (top + floor) / 2);
  });
  figure.querySelectorAll(".legend li").forEach((item, i) => {
    item.setAttribute("aria-pressed", "true");
    item.addEventListener("pointerenter", () => mark(curves[i]));
    item.addEventListener("pointerleave", () => mark(null));
    press(item, () => {
      const hidden = curves[i].group.classList.toggle("off");
      item.setAttribute("aria-pressed", String(!hidden));
    });
  });
}

for (const svg of document.querySelectorAll(".matrix")) {
  const { names, counts } = JSON.parse(svg.dataset.matrix);
  const [margin, side] = svg.dataset.area.split(" ").map(Number);
  const show = event => {
    const [x, y] = inside(svg, event);
    const [row, column] = [y, x - margin].map(v => Math.floor(v / side * names.length));
    const count = counts[row]?.[column];
    if (count === undefined) return hush();
    const share = 100 * count / Math.max(counts[row].reduce((a, b) => a + b), 1);
    say([[`label ${names[row]}`], [`predicted ${names[column]}`],
      [`${share.toFixed(share < 1 ? 2 : 1)} % of the label, ${count} pixels`]],
      event.clientX, event.clientY);
  };
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, show);
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hush(); });
}

for (const box of document.querySelectorAll(".scroll")) {
  const hint = box.previousElementSibling;
  const look = () => {
    hint.hidden = box.scrollWidth <= box.clientWidth + 1 || box.scrollLeft > 40;
  };
  box.addEventListener("scroll", look);
  new ResizeObserver(look).observe(box);
}

const full = make("dialog", undefined, undefined, "full");
// Opens the picture `start` of a strip at full size; the others are a key or a button away.
const open = (strip, start) => {
  const figures = [...strip.querySelectorAll("figure")];
  const photo = strip.querySelector(".photo");
  let opacity = 100;
  const nav = make("nav");
  make("b", nav, strip.previousElementSibling.textContent);
  const buttons = figures.map((figure, i) => {
    const button = make("button", nav, figure.querySelector("figcaption").textContent);
    button.addEventListener("click", () => choose(i));
    return button;
  });
  const slider = make("input", nav);
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 100, ariaLabel: "opacity" });
  const fit = make("button", nav, "fit");
  const close = make("button", nav, "close");
  const view = make("div", undefined, undefined, "view fit");
  const stack = make("div", view, undefined, "stack");
  let chosen = start;
  const choose = index => {
    chosen = (index + figures.length) % figures.length;
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
    const top = [...figures[chosen].querySelectorAll("img:not(.below)")].at(-1).cloneNode();
    const below = photo && !top.matches(".photo") ? [photo.cloneNode()] : [];
    below.forEach(img => img.classList.toggle("grey", top.alt === "errors"));
    slider.hidden = !below.length;
    top.style.opacity = below.length ? opacity / 100 : 1;
    stack.replaceChildren(...below, top);
  };
  const resize = fits => {
    view.classList.toggle("fit", fits);
    fit.textContent = fits ? "100 %" : "fit";
  };
  slider.addEventListener("input", () => { opacity = slider.value; choose(chosen); });
  fit.addEventListener("click", () => resize(!view.classList.contains("fit")));
  close.addEventListener("click", () => full.close());
  full.onkeydown = event => {
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (side && event.target !== slider) choose(chosen + side);
  };
  const legend = strip.nextElementSibling?.matches(".legend") ? strip.nextElementSibling : null;
  full.replaceChildren(nav, view, ...(legend ? [legend.cloneNode(true)] : []));
  document.body.append(full);
  choose(start);
  resize(true);
  full.showModal();
  close.focus();
};
for (const strip of document.querySelectorAll(".strip")) {
  strip.querySelectorAll("figure").forEach((figure, i) => {
    const stack = figure.querySelector(".stack");
    stack.title = "open at full size";
    press(stack, () => open(strip, i));
  });
}

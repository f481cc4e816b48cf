// A picture from close by: a dialog in which it is moved and made larger by wheel, pinch, drag, keys
// and buttons. Reports and the service's page share it.

const SVG = "http://www.w3.org/2000/svg";
const VIEWS = { original: "Original", outline: "Outlines", overlay: "Overlay", map: "Map" };
const STEP = 1.5; // by a key or a button
const MOVE = 80; // CSS pixels, by an arrow
const CLOSEST = 32; // CSS pixels for one of the picture's, at most
const SHARP = 4; // and from where on its pixels are shown as squares
const SLIP = 8; // CSS pixels that a tap may move
const SOON = 400; // milliseconds between two taps
const far = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function vector(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Resolves to an image that can be shown at once.
export async function pictureAt(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

// An element `sheet`, of a size in pixels of the picture, that is seen through an element `room`.
// It is laid out anew at every step, not transformed: lines and labels in it keep their width.
export class Zoom {
  #held = new Map(); // where pointers are
  #size = [1, 1];
  #seen = [0, 0]; // the room's size
  #whole = true; // whether all of the picture is seen
  #pressed = null; // where a pointer went down that has not moved since
  #tapped = null; // where and when one was last lifted so

  constructor(room, sheet, changed = () => {}) {
    this.room = room;
    this.sheet = sheet;
    this.changed = changed;
    this.tap = null; // called with where a pointer was lifted that had not moved; in the place of double taps
    this.scale = 1; // CSS pixels for one of the picture's
    this.x = this.y = 0; // the sheet's corner in the room
    room.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    room.addEventListener("pointerdown", (event) => this.#hold(event));
    room.addEventListener("pointermove", (event) => this.#follow(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      room.addEventListener(kind, (event) => this.#release(event));
    }
    new ResizeObserver(() => this.#resized()).observe(room);
  }

  // Where all of the picture is seen, and where one of its pixels is one of the screen's.
  get least() { return Math.min(this.room.clientWidth / this.#size[0], this.room.clientHeight / this.#size[1]) || 1; }
  get most() { return Math.max(CLOSEST, 4 * this.least); }
  get own() { return 1 / devicePixelRatio; }
  get fitted() { return this.scale <= 1.001 * this.least; }

  // Begins with another picture, all of it.
  show(width, height) {
    this.#size = [width, height];
    this.#held.clear();
    this.fit();
  }

  fit() {
    this.scale = this.least;
    this.#place();
  }

  // Keeps the place at x, y of the room where it is; by default the room's middle.
  zoom(factor, x = this.room.clientWidth / 2, y = this.room.clientHeight / 2) {
    this.#carry(factor, [x, y], [x, y]);
  }

  move(dx, dy) {
    this.#carry(1, [0, 0], [dx, dy]);
  }

  // Brings a box of the picture to the room's middle, with what is around it.
  look(left, top, right, bottom) {
    const { clientWidth, clientHeight } = this.room;
    const scale = Math.min(clientWidth / (right - left), clientHeight / (bottom - top)) / 3;
    this.scale = Math.min(Math.max(scale, this.least), Math.max(2 * this.own, 3 * this.least));
    this.x = (clientWidth - (left + right) * this.scale) / 2;
    this.y = (clientHeight - (top + bottom) * this.scale) / 2;
    this.#place();
  }

  // From where a pointer is on the page to pixels of the picture.
  toPicture(clientX, clientY) {
    const box = this.sheet.getBoundingClientRect();
    return [(clientX - box.left) / this.scale, (clientY - box.top) / this.scale];
  }

  // Does what a key stands for; says whether it stands for anything.
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrow && this.fitted) return false;
    if (arrow) this.move(MOVE * arrow[0], MOVE * arrow[1]);
    else if (event.key === "+" || event.key === "=") this.zoom(STEP);
    else if (event.key === "-" || event.key === "_") this.zoom(1 / STEP);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoom(this.own / this.scale);
    else return false;
    event.preventDefault();
    return true;
  }

  // Zooms, and brings what is at one place of the room to another.
  #carry(factor, from, to) {
    const scale = Math.min(Math.max(this.scale * factor, this.least), this.most);
    this.x = to[0] - (from[0] - this.x) * (scale / this.scale);
    this.y = to[1] - (from[1] - this.y) * (scale / this.scale);
    this.scale = scale;
    this.#place();
  }

  #at(event) {
    const box = this.room.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // The room's middle is always on the picture; if all of that is seen, it is in the middle.
  #place() {
    const [width, height] = this.#size.map((side) => side * this.scale);
    const { clientWidth, clientHeight } = this.room;
    const inside = (at, room, side) =>
      this.fitted ? (room - side) / 2 : Math.min(Math.max(at, room / 2 - side), room / 2);
    this.x = inside(this.x, clientWidth, width);
    this.y = inside(this.y, clientHeight, height);
    Object.assign(this.sheet.style, {
      left: `${this.x}px`, top: `${this.y}px`, width: `${width}px`, height: `${height}px`,
    });
    this.sheet.classList.toggle("sharp", this.scale >= SHARP);
    this.room.classList.toggle("zoomed", !this.fitted);
    this.#seen = [clientWidth, clientHeight];
    this.#whole = this.fitted;
    this.changed(this);
  }

  #resized() {
    const { clientWidth, clientHeight } = this.room;
    if (!clientWidth) return; // the dialog has closed
    if (this.#whole || this.scale < this.least) this.fit();
    else this.move((clientWidth - this.#seen[0]) / 2, (clientHeight - this.#seen[1]) / 2);
  }

  #wheel(event) {
    event.preventDefault();
    const lines = [1, 16, 400][event.deltaMode];
    // A pinch on a touchpad comes as a wheel with the control key, of small steps.
    const speed = event.ctrlKey ? 0.01 : 0.002;
    this.zoom(Math.exp(-Math.max(-400, Math.min(400, event.deltaY * lines)) * speed), ...this.#at(event));
  }

  #hold(event) {
    if (event.button || event.target.closest("button")) return;
    this.room.setPointerCapture(event.pointerId);
    this.#held.set(event.pointerId, this.#at(event));
    this.#pressed = this.#held.size === 1 ? this.#at(event) : null;
    this.room.classList.add("held");
  }

  #follow(event) {
    if (!this.#held.has(event.pointerId)) return;
    const before = this.#spread();
    this.#held.set(event.pointerId, this.#at(event));
    const now = this.#spread();
    if (this.#pressed && far(this.#pressed, now.middle) > SLIP) this.#pressed = null;
    this.#carry(before.far && now.far ? now.far / before.far : 1, before.middle, now.middle);
  }

  #release(event) {
    if (!this.#held.delete(event.pointerId)) return;
    this.room.classList.toggle("held", this.#held.size > 0);
    if (event.type !== "pointerup" || !this.#pressed) return;
    if (this.tap) this.tap(event);
    else this.#tap(this.#pressed, event.timeStamp);
  }

  // A second tap soon after the first shows the picture's own pixels there, or all of it again.
  #tap(at, time) {
    const twice = this.#tapped && time - this.#tapped.time < SOON && far(at, this.#tapped.at) < 4 * SLIP;
    this.#tapped = twice ? null : { at, time };
    if (!twice) return;
    if (this.fitted) this.zoom(Math.max(this.own, 3 * this.least) / this.scale, ...at);
    else this.fit();
  }

  // The middle of the first two pointers, and how far apart they are.
  #spread() {
    const [[x, y], [otherX, otherY] = [x, y]] = this.#held.values();
    return { middle: [(x + otherX) / 2, (y + otherY) / 2], far: far([x, y], [otherX, otherY]) };
  }
}

let hatched = 0;

// Fills an element with a picture's layers, and SVG paths over them that are as thin at every size.
export function fillLayers(sheet, { size: [width, height], layers, paths, places = [] }) {
  const lines = vector("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const drawn = [["outline", "edge"], ["truth", "edge"], ["outline", "outline"], ["truth", "truth"]];
  for (const [path, kind] of drawn) {
    if (paths[path]) lines.append(vector("path", { d: paths[path], class: kind }));
  }
  const parts = ["photo", "heat", "map"].filter((name) => layers[name]).map((name) => {
    layers[name].classList.add(name);
    return layers[name];
  });
  if (paths.unseen) {
    const clip = vector("clipPath", { id: `unseen-${++hatched}`, clipPathUnits: "objectBoundingBox" });
    const scale = `scale(${1 / width} ${1 / height})`;
    clip.append(vector("path", { d: paths.unseen, transform: scale, "clip-rule": "evenodd" }));
    lines.append(clip);
    const hatch = make("i", "unseen");
    hatch.style.clipPath = `url(#${clip.id})`;
    parts.push(hatch);
  }
  sheet.replaceChildren(...parts, lines, ...places.map(([left, top], i) => {
    const badge = make("span", "n", i + 1);
    badge.style.left = `max(20px, ${left}%)`; // beside the place, and on the picture
    badge.style.top = `max(20px, ${top}%)`;
    return badge;
  }));
  return lines;
}

// The same view is chosen everywhere on a page: of the original, with outlines, with the map over it.
export function setView(view) {
  document.body.dataset.view = view;
  for (const input of document.querySelectorAll("[data-views] input")) input.checked = input.value === view;
}

document.addEventListener("input", (event) => {
  const input = event.target;
  if (input.matches("[data-views] input")) setView(input.value);
  if (!input.matches("[data-strength]")) return;
  document.documentElement.style.setProperty("--strength", input.value / 100);
  for (const other of document.querySelectorAll("[data-strength]")) other.value = input.value;
  if (document.body.dataset.view !== "overlay") setView("overlay");
});

function controlsOf(names) {
  const choice = make("fieldset", "choice");
  choice.dataset.views = "";
  choice.append(make("legend", "", "View"));
  for (const name of names) {
    const label = make("label");
    const input = make("input");
    Object.assign(input, { type: "radio", name: "viewer-view", value: name });
    label.append(input, make("span", "", VIEWS[name]));
    choice.append(label);
  }
  const slider = make("label", "strength");
  const range = make("input");
  Object.assign(range, { type: "range", min: 0, max: 100 });
  range.dataset.strength = "";
  range.value = 100 * parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--strength"));
  slider.append(make("span", "", "Opacity"), range);
  const controls = make("div", "controls");
  controls.append(choice, slider);
  return controls;
}

function button(id, label, path, work) {
  const element = make("button");
  const icon = vector("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" });
  icon.append(vector("path", { d: path }));
  element.type = "button";
  element.id = `viewer-${id}`;
  element.title = label;
  element.setAttribute("aria-label", label);
  element.append(icon);
  element.addEventListener("click", work);
  return element;
}

let viewer = null;

function build() {
  const dialog = make("dialog");
  dialog.id = "viewer";
  dialog.setAttribute("aria-labelledby", "viewer-name");
  const step = (by) => { if (viewer.now.step?.[by]) viewer.now.step[by](); };
  const head = make("header");
  const said = make("div");
  said.append(make("h2"), make("p"), make("p"));
  ["viewer-name", "viewer-line", "viewer-note"].forEach((id, i) => { said.children[i].id = id; });
  said.children[2].setAttribute("role", "status");
  head.append(
    button("before", "Previous image", "M15 5l-7 7 7 7", () => step("before")),
    button("after", "Next image", "M9 5l7 7-7 7", () => step("after")),
    said, button("close", "Close", "M6 6l12 12M18 6L6 18", () => dialog.close()));
  const room = make("div", "room");
  room.tabIndex = 0;
  room.setAttribute("role", "group");
  room.setAttribute("aria-label", "Picture: plus and minus zoom, arrows move it, 0 shows all of it, 1 its own pixels");
  const sheet = make("div", "layers");
  const bar = make("div", "zoom");
  const scale = make("output");
  scale.id = "viewer-scale";
  const zoom = new Zoom(room, sheet, () => {
    scale.textContent = `${Math.round(100 * zoom.scale * devicePixelRatio)} %`;
    keepFocus(room, () => {
      smaller.disabled = whole.disabled = zoom.fitted;
      larger.disabled = zoom.scale >= zoom.most;
    });
  });
  const smaller = button("smaller", "Smaller", "M5 12h14", () => zoom.zoom(1 / STEP));
  const larger = button("larger", "Larger", "M5 12h14M12 5v14", () => zoom.zoom(STEP));
  const whole = button("fit", "All of the picture", "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5", () => zoom.fit());
  bar.append(smaller, scale, larger, whole);
  room.append(sheet, bar);
  const scroll = make("div", "scroll");
  const side = make("div", "side");
  scroll.append(room, side);
  dialog.append(head, scroll);
  document.body.append(dialog);

  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Tab") return keepInside(dialog, event);
    const arrow = event.key.startsWith("Arrow");
    if (event.target.matches("input") && arrow || zoom.key(event)) return;
    if (event.key === "ArrowLeft") step("before");
    if (event.key === "ArrowRight") step("after");
  });
  dialog.addEventListener("close", () => {
    sheet.replaceChildren();
    side.replaceChildren();
    const { closed } = viewer.now;
    viewer.now = {};
    closed?.();
  });
  return { dialog, room, sheet, zoom, side, now: {} };
}

// A button that is of no use any more lets go of the focus, and with it of the keys.
function keepFocus(room, change) {
  const focused = document.activeElement;
  change();
  if (focused.disabled || focused.hidden) room.focus();
}

// A dialog lets the focus leave for the browser's own controls; here it goes round.
function keepInside(dialog, event) {
  const all = [...dialog.querySelectorAll("button:not(:disabled), input, summary, [tabindex='0']")]
    .filter((one) => one.offsetParent && (one.type !== "radio" || one.checked));
  const end = event.shiftKey ? all[0] : all.at(-1);
  const radio = document.activeElement.name && end.name === document.activeElement.name;
  if (document.activeElement !== end && !radio) return;
  event.preventDefault();
  (event.shiftKey ? all.at(-1) : all[0]).focus();
}

// Opens the dialog, or shows another picture in it.
//   title, line     what stands above; note, what should be known of the picture
//   size            width and height of the picture in pixels, which paths are in
//   layers          elements photo and, if need be, heat and map, shown at once
//   own             functions that return promises of the same at their own resolution; lost, what
//                   is said if there is no such photo
//   paths           SVG paths: outline, truth, unseen
//   places          left and top of numbered places in percent
//   side            elements that stand beside the picture
//   tap             called with the event of a pointer that is lifted where it went down
//   step            functions before and after, which show the neighbours
//   closed          called when the dialog closes
// Returns what it is made of: dialog, room, sheet, zoom, side, and lines, the SVG element, whose units
// are the picture's pixels. Who takes a pointer's events on the sheet, to draw say, and stops them there
// keeps them from moving the picture; zoom.toPicture tells which place is meant.
export function openViewer(picture) {
  viewer ??= build();
  const { dialog, room, sheet, zoom, side } = viewer;
  const set = (id, text) => { document.getElementById(`viewer-${id}`).textContent = text; };
  viewer.now = picture;
  zoom.tap = picture.tap ?? null;
  viewer.lines = fillLayers(sheet, picture);
  set("name", picture.title);
  set("line", picture.line ?? "");
  set("note", picture.note ?? "");
  keepFocus(room, () => {
    for (const by of ["before", "after"]) {
      const one = document.getElementById(`viewer-${by}`);
      one.hidden = !picture.step;
      one.disabled = !picture.step?.[by];
    }
  });
  const views = Object.keys(VIEWS).filter((name) => name !== "map" || picture.layers.map);
  side.replaceChildren(controlsOf(views), ...(picture.side ?? []));
  setView(views.includes(document.body.dataset.view) ? document.body.dataset.view : "overlay");
  side.scrollTop = 0;
  if (!dialog.open) {
    dialog.showModal();
    room.focus();
  }
  zoom.show(...picture.size);
  for (const [name, load] of Object.entries(picture.own ?? {})) sharpen(name, load, picture);
  return viewer;
}

// Puts a layer at its own resolution in the place of the small one, if it is still looked at.
async function sharpen(name, load, picture) {
  const small = picture.layers[name];
  try {
    const own = await load();
    own.className = `${name} own`;
    own.alt = small.alt;
    own.draggable = false;
    if (viewer.now === picture) small.replaceWith(own);
  } catch (error) {
    if (viewer.now !== picture || name !== "photo") return;
    document.getElementById("viewer-note").textContent =
      picture.lost ?? `Shown small: ${error.message}`;
  }
}

// Draws which part of the index's images is looked at: polygons over a picture in the viewer.
// Each is painted over those before it. What they are painted on is looked at if the first one is
// left out, and is not if that is looked at; where there are none, all is.
import { make, openViewer, pictureAt, vector } from "./viewer.js";

const NEAR = 14; // CSS pixels from a corner in which a pointer takes it; of a finger, REACH
const REACH = 22;
const SOON = 400; // milliseconds between the taps of a double click
const MOVE = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LOOK = 700; // milliseconds between looks at what becomes of a region that was saved
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

let areas = []; // of { corners: [[x, y], …], looked: boolean }, in pixels of the good images
let open = null; // the one that is still being drawn
let before = []; // to be undone: what areas was
let saved = "[]"; // what the index has
let size = [1, 1];
let of = null; // the index that these are of: what its addresses begin with

const snapshot = () => JSON.stringify({ areas, open: areas.indexOf(open) });
const closed = () => areas.filter((area) => area !== open);
const plain = (list) => JSON.stringify(list.map(({ corners, looked }) => [corners, looked]));

// Takes what the service says: polygons on a picture that is looked at nowhere.
function take(shape) {
  size = [shape.width, shape.height];
  areas = shape.polygons.map((one) => ({ corners: one.corners, looked: one.looked_at }));
  open = null;
}

// A canvas of the region, white where it is looked at, of the good images' size or smaller.
function painted(most = Infinity) {
  const scale = Math.min(1, most / Math.max(...size));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(size[0] * scale));
  canvas.height = Math.max(1, Math.round(size[1] * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (looked) => { context.fillStyle = looked ? "#fff" : "#000"; };
  paint(!closed()[0]?.looked);
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const { corners, looked } of closed()) {
    paint(looked);
    context.beginPath();
    for (const [x, y] of corners) context.lineTo((x * canvas.width) / size[0], (y * canvas.height) / size[1]);
    context.fill();
  }
  return canvas;
}

function share() {
  const canvas = painted(256);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let looked = 0;
  for (let at = 0; at < data.length; at += 4) looked += data[at] > 127;
  return (4 * looked) / data.length;
}

const png = () => new Promise((done) => painted().toBlob(done, "image/png"));

function button(text, work, className = "plain") {
  const element = make("button", className, text);
  element.type = "button";
  element.addEventListener("click", work);
  return element;
}

// Opens the editor.
//   base            what the addresses of the index begin with
//   ask, fetched    functions that ask the service for JSON, and for a file as an address
//   queried         the newest picture that was queried, if any: { name, width, height, load }
//   done            called when another region counts
//   opener          what gets the focus when the editor closes
export async function editRegion({ base, ask, fetched, queried, done, opener }) {
  let said = await ask(`${base}/region`);
  if (of !== base) {
    [areas, open, before, saved, of] = [[], null, [], "[]", base];
  }
  const unsaved = areas.length || before.length ? plain(areas) !== saved : false;
  if (!unsaved) {
    take(said);
    saved = plain(areas);
    before = [];
  }
  const same = queried && Math.abs((queried.width * size[1]) / (queried.height * size[0]) - 1) < 0.01;
  const svg = vector("svg", { class: "region", viewBox: `0 0 ${size[0]} ${size[1]}`, preserveAspectRatio: "none" });
  const panel = make("div", "editor");
  let viewer = null;
  let shown = new Image();
  let last = null; // where and when a pointer was tapped last

  // What stands beside the picture.
  const choice = make("select");
  choice.id = "region-picture";
  for (let i = 0; i < said.images; i += 1) choice.append(new Option(`Good image ${i + 1}`, i));
  if (same) choice.append(new Option(`Queried: ${queried.name}`, "queried"));
  const choiceLabel = make("label", "", "Picture ");
  choiceLabel.append(choice);
  const kind = make("fieldset", "choice");
  kind.append(make("legend", "", "What you draw is"));
  for (const [value, text] of [["look", "Look here"], ["leave", "Leave out"]]) {
    const label = make("label");
    const input = make("input");
    Object.assign(input, { type: "radio", name: "region-kind", value, checked: value === "look" });
    label.append(input, make("span", "", text));
    kind.append(label);
  }
  const help = make("p", "muted", "Tap to set corners; a double tap, Enter or the first corner closes " +
    "an area. Drag a corner to move it; Delete takes it away, Insert sets one after it, arrows move it. " +
    "Drag elsewhere to move the picture.");
  const close = button("Close area", () => finish());
  const undo = button("Undo", back);
  const clear = button("Clear", () => change(() => { areas = []; open = null; }));
  const rectangle = button("Add a rectangle", addRectangle);
  const propose = button("Propose", proposed);
  const list = make("ol", "areas");
  list.setAttribute("aria-label", "Areas");
  const part = make("p");
  part.id = "region-share";
  const save = button("Save", store, "");
  save.id = "region-save";
  const download = button("Download mask", async () => {
    const link = make("a");
    link.href = URL.createObjectURL(await png());
    link.download = "region.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  const status = make("p");
  status.id = "region-status";
  status.setAttribute("role", "status");
  const row = (...parts) => {
    const element = make("div", "row");
    element.append(...parts);
    return element;
  };
  panel.append(choiceLabel, kind, help, row(close, undo, rectangle, propose, clear), list, part,
    row(save, download), status);

  const tell = (text, wrong = false) => {
    status.textContent = text;
    status.classList.toggle("wrong", wrong);
  };
  const unit = () => size[0] / viewer.sheet.getBoundingClientRect().width; // of the picture, a CSS pixel
  const clamp = ([x, y]) => [Math.min(Math.max(x, 0), size[0]), Math.min(Math.max(y, 0), size[1])];
  const rounded = (point) => clamp(point).map(Math.round);
  const place = (event) => rounded(viewer.zoom.toPicture(event.clientX, event.clientY));
  const chosen = () => kind.querySelector("input:checked").value === "look";

  function change(work) {
    before.push(snapshot());
    work();
    draw();
  }

  function back() {
    const was = before.pop();
    if (!was) return;
    const state = JSON.parse(was);
    areas = state.areas;
    open = areas[state.open] ?? null;
    draw();
  }

  function finish() {
    if (!open) return;
    if (open.corners.length < 3) {
      tell("An area needs three corners or more.", true);
      return;
    }
    change(() => { open = null; });
    tell("");
  }

  function cancel() {
    change(() => {
      areas = closed();
      open = null;
    });
  }

  function tap(event) {
    const at = place(event);
    const again = last && event.timeStamp - last.time < SOON &&
      Math.hypot(event.clientX - last.x, event.clientY - last.y) < NEAR;
    last = again ? null : { time: event.timeStamp, x: event.clientX, y: event.clientY };
    if (again) {
      finish();
      return;
    }
    change(() => {
      if (open) open.corners.push(at);
      else areas.push(open = { corners: [at], looked: chosen() });
    });
  }

  function addRectangle() {
    const room = viewer.room.getBoundingClientRect();
    const corner = (x, y) => rounded(viewer.zoom.toPicture(room.left + x * room.width, room.top + y * room.height));
    const [[left, top], [right, bottom]] = [corner(0.3, 0.3), corner(0.7, 0.7)];
    change(() => {
      open = null;
      areas = areas.filter((area) => area.corners.length > 2);
      areas.push({ corners: [[left, top], [right, top], [right, bottom], [left, bottom]], looked: chosen() });
    });
    svg.querySelector(`[data-area="${areas.length - 1}"]`).focus();
  }

  async function proposed() {
    try {
      const shape = await ask(`${base}/region/proposal`);
      if (!shape.polygons.length) {
        tell("There is nothing to propose: the good images show no plain ground.");
        return;
      }
      change(() => take(shape));
      tell("This is a guess: look at it before you save it.");
    } catch (error) {
      tell(error.message, true);
    }
  }

  function remove(area, at) {
    change(() => {
      area.corners.splice(at, 1);
      if (area.corners.length >= (area === open ? 1 : 3)) return;
      areas = areas.filter((one) => one !== area);
      if (area === open) open = null;
    });
    const left = svg.querySelectorAll(`[data-area="${areas.indexOf(area)}"]`);
    (left[Math.min(at, left.length - 1)] ?? viewer.room).focus();
  }

  function insert(area, at) {
    const [x, y] = area.corners[at];
    const [nextX, nextY] = area.corners[(at + 1) % area.corners.length];
    change(() => area.corners.splice(at + 1, 0, rounded([(x + nextX) / 2, (y + nextY) / 2])));
    svg.querySelectorAll(`[data-area="${areas.indexOf(area)}"]`)[at + 1].focus();
  }

  function onCornerKey(event, area, at) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = MOVE[event.key];
    if (way) {
      const step = Math.max(1, Math.round(unit())) * (event.shiftKey ? 10 : 1);
      change(() => { area.corners[at] = rounded([area.corners[at][0] + step * way[0], area.corners[at][1] + step * way[1]]); });
    } else if (event.key === "Delete" || event.key === "Backspace") remove(area, at);
    else if (event.key === "Insert") insert(area, at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // A corner as something to take hold of.
  function cornerOf(area, number, at) {
    const corner = vector("g", {
      class: `corner ${area.looked ? "" : "leave"}`, tabindex: 0, role: "button",
      "aria-label": `Corner ${at + 1} of area ${number + 1}`, "data-area": number,
    });
    corner.append(vector("circle", { class: "reach" }), vector("circle", { class: "dot" }));
    let held = null; // where it was when it was taken, and whether it moved since
    corner.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.stopPropagation();
      event.preventDefault();
      corner.focus();
      corner.setPointerCapture(event.pointerId);
      held = { x: event.clientX, y: event.clientY, was: snapshot(), moved: false };
    });
    corner.addEventListener("pointermove", (event) => {
      if (!held) return;
      event.stopPropagation();
      held.moved ||= Math.hypot(event.clientX - held.x, event.clientY - held.y) > 3;
      if (!held.moved) return;
      area.corners[at] = place(event);
      lay();
    });
    corner.addEventListener("pointerup", (event) => {
      if (!held) return;
      event.stopPropagation();
      const { moved, was } = held;
      held = null;
      if (moved) {
        before.push(was);
        draw();
      } else if (area === open && (at === 0 || at === area.corners.length - 1)) finish(); // a double click ends on the last
    });
    corner.addEventListener("pointercancel", () => {
      held = null;
      draw();
    });
    corner.addEventListener("keydown", (event) => onCornerKey(event, area, at));
    return corner;
  }

  // Makes the drawing anew, and what is said of it; the focus stays on the same corner.
  function draw() {
    const focused = document.activeElement;
    const kept = svg.contains(focused) ? [...svg.querySelectorAll(".corner")].indexOf(focused) : -1;
    const hatch = vector("pattern", { id: "left-out", width: 8, height: 8, patternUnits: "userSpaceOnUse" });
    hatch.append(vector("rect", { width: 8, height: 8, fill: "rgb(0 0 0 / .5)" }),
      vector("rect", { width: 1.4, height: 8, fill: "rgb(255 255 255 / .6)" }));
    const mask = vector("mask", { id: "region-mask", maskUnits: "userSpaceOnUse", x: 0, y: 0, width: size[0], height: size[1] });
    const whole = (fill) => vector("rect", { width: size[0], height: size[1], fill });
    mask.append(whole(closed()[0]?.looked ? "#fff" : "#000"));
    for (const area of closed()) mask.append(vector("polygon", { fill: area.looked ? "#000" : "#fff", "data-of": areas.indexOf(area) }));
    const out = whole("");
    out.removeAttribute("fill");
    out.setAttribute("class", "left-out");
    out.setAttribute("mask", "url(#region-mask)");
    const lines = areas.flatMap((area, i) => ["under", area.looked ? "" : "leave"].map((name) =>
      vector(area === open ? "polyline" : "polygon",
        { class: `area ${name}`, "data-of": i, "vector-effect": "non-scaling-stroke" })));
    svg.replaceChildren(hatch, mask, out, ...lines,
      ...areas.flatMap((area, i) => area.corners.map((_, at) => cornerOf(area, i, at))));
    list.replaceChildren(...areas.map(itemOf));
    lay();
    if (kept >= 0) (svg.querySelectorAll(".corner")[kept] ?? viewer.room).focus();
    close.disabled = !open;
    undo.disabled = !before.length;
    clear.disabled = !areas.length;
    const looked = share();
    part.textContent = open ? "The area is not closed yet." : closed().length
      ? `${Number((100 * looked).toPrecision(3))} % of the picture is looked at.` : "All of the picture is looked at.";
    const busy = said.state === "learning";
    save.disabled = Boolean(open || said.refused || busy || !looked || plain(areas) === saved);
    download.disabled = Boolean(open) || !looked;
    if (open ? document.activeElement === close : document.activeElement === document.body) viewer.room.focus();
  }

  // Puts everything where it belongs, as large as it is to be at this zoom.
  function lay() {
    const one = unit();
    svg.querySelector("pattern").setAttribute("patternTransform", `scale(${one}) rotate(45)`);
    for (const line of svg.querySelectorAll("[data-of]")) {
      line.setAttribute("points", areas[line.dataset.of].corners.join(" "));
    }
    const flat = areas.flatMap((area) => area.corners);
    svg.querySelectorAll(".corner").forEach((corner, i) => {
      const coarse = matchMedia("(pointer: coarse)").matches;
      corner.setAttribute("transform", `translate(${flat[i]}) scale(${one})`);
      corner.querySelector(".reach").setAttribute("r", coarse ? REACH : NEAR);
      corner.querySelector(".dot").setAttribute("r", 6);
    });
  }

  function itemOf(area, i) {
    const item = make("li");
    const looked = make("select");
    looked.append(new Option("Look here", "look"), new Option("Leave out", "leave"));
    looked.value = area.looked ? "look" : "leave";
    looked.setAttribute("aria-label", `What area ${i + 1} is`);
    looked.addEventListener("change", () => {
      const value = looked.value === "look";
      change(() => { area.looked = value; });
      list.children[i].querySelector("select").focus();
    });
    const gone = button("Remove", () => change(() => {
      areas = areas.filter((one) => one !== area);
      if (area === open) open = null;
    }));
    gone.setAttribute("aria-label", `Remove area ${i + 1}`);
    item.append(make("strong", "", `Area ${i + 1}`), looked, gone);
    return item;
  }

  async function store() {
    const asked = plain(areas);
    said.state = "learning";
    draw();
    try {
      tell("Saving …");
      said = await (areas.length ? ask(`${base}/region`, { method: "PUT", body: await png() })
        : ask(`${base}/region`, { method: "DELETE" }));
      await follow();
      if (said.state === "idle") saved = asked;
    } catch (error) {
      said.state = "idle";
      tell(error.message, true);
    }
    draw();
  }

  // Tells what becomes of a region that was asked for, until it counts or cannot be.
  async function follow() {
    while (said.state === "learning") {
      tell(`Learning: ${said.progress ?? "begins"}. The index before answers meanwhile.`);
      await pause(LOOK);
      said = await ask(`${base}/region`);
    }
    if (said.state === "failed") tell(said.problem, true);
    else tell("Saved: the index looks at this now.");
    done();
  }

  async function show(which) {
    try {
      const next = which === "queried" ? await queried.load() : await pictureAt(await fetched(`${base}/region/picture?image=${which}`));
      next.classList.add("photo");
      next.alt = choice.selectedOptions[0].text;
      next.draggable = false;
      shown.replaceWith(next);
      shown = next;
    } catch (error) {
      tell(error.message, true);
    }
  }

  viewer = openViewer({
    title: "Region",
    line: `What is looked at of pictures of ${size[0]} × ${size[1]} pixels`,
    size,
    layers: { photo: shown },
    paths: {},
    side: [panel],
    tap,
    closed: () => {
      resized.disconnect();
      viewer.dialog.removeEventListener("keydown", onKey, true);
      opener.focus();
    },
  });
  viewer.sheet.append(svg);
  const resized = new ResizeObserver(lay);
  resized.observe(viewer.sheet);

  function onKey(event) {
    const drawing = open !== null;
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) back();
    else if (event.key === "Escape" && drawing) cancel();
    else if (event.key === "Enter" && drawing && !event.target.closest("button, select")) finish();
    else if ((event.key === "Backspace" || event.key === "Delete") && drawing && event.target === viewer.room) {
      remove(open, open.corners.length - 1);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
  viewer.dialog.addEventListener("keydown", onKey, true);
  choice.addEventListener("change", () => show(choice.value));
  draw();
  if (said.refused) tell(`Nothing can be saved here: ${said.refused}. The mask can be downloaded for a build.`);
  await show(0);
  if (said.state === "learning") {
    await follow().catch((error) => tell(error.message, true));
    draw();
  }
}

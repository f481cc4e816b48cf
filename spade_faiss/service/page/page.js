// Sends images to be queried and shows what comes back. The browser keeps nothing but the token, for
// this tab, and a person's name; what the service keeps is shown by history.js.
import { openHistory } from "./history.js";
import { editRegion } from "./region.js";
import { make, openViewer, pictureAt } from "./viewer.js";

const at = (id) => document.getElementById(id);
const KEPT = 24; // results on the page
const figure = (value) => Number(value.toPrecision(4)).toString();
const which = document.getElementById("which"); // there if the service has several indices
const base = () => (which ? `/v1/indices/${encodeURIComponent(which.value)}` : "/v1");
let stream = null;
let partly = false;
let described = null; // which state of the index the heading tells of
let following = false;
let queried = null; // the newest picture that was looked at, for the region's editor
const gone = new Map(); // how many results are on the page no more, by verdict
const LARGE = 22 << 20; // bytes of a file, of which some browsers take no longer an address than 32 MiB
const LOOK = 5000; // milliseconds between looks at the index, and a fifth of it while it changes
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const clock = (time) => new Date(time).toLocaleTimeString();

const inAddress = (blob) => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(reader.error);
  reader.readAsDataURL(blob);
});
const fetched = (path) => ask(path, {}, (response) => response.blob().then(inAddress));

async function ask(path, options = {}, read = (response) => response.json()) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
  for (;;) {
    const response = await fetch(path, { ...options, headers }).catch(() => {
      throw new Error("The service does not answer; has it ended?");
    });
    if (response.status === 429) { // the queue is full: wait as long as it says
      const seconds = Number(response.headers.get("retry-after")) || 1;
      await pause(1000 * seconds);
      continue;
    }
    const answer = await (response.ok ? read(response) : response.json());
    if (response.status === 401) {
      described = null;
      at("access").hidden = false;
      at("token").focus();
      throw new Error(token ? "This is not the service's token" : "Give the service's token first");
    }
    if (!response.ok) {
      const error = new Error(answer.detail ?? response.statusText);
      error.ofImage = [413, 415, 422].includes(response.status);
      throw error;
    }
    return answer;
  }
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

function tell(index) {
  partly = index.cropped || index.region !== null;
  described = index.manifest_sha256;
  at("region").hidden = false;
  const limit = (index.threshold === null ? "no threshold" : `threshold ${figure(index.threshold)}`) +
    (index.by_hand ? " (set by hand)" : "") +
    (index.review === null ? "" : `, review from ${figure(index.review)}`);
  at("notes").replaceChildren(...index.notes.map((text) => {
    const item = document.createElement("li");
    item.textContent = `Note: ${text}`;
    return item;
  }));
  at("notes").hidden = index.notes.length === 0;
  const count = index.members.length;
  const networks = [...new Set(index.members.map((one) => one.backbone))].join(" and ");
  at("index").textContent = `${index.images} good image${index.images === 1 ? "" : "s"}, ` +
    `${networks}${count === 1 ? "" : ` (${count} views averaged)`}, ${limit}` +
    (index.region === null ? "" : `, looks at ${figure(100 * index.region)} % of the image`);
  const { since, until, problem } = index.outdated ?? {};
  at("outdated").hidden = !since;
  at("outdated").classList.toggle("wrong", Boolean(problem));
  at("outdated").textContent = !since ? "" : problem
    ? `The index was replaced at ${clock(since)}, and what took its place cannot be used: ` +
      `${problem}. The one before answers; the other is tried again at ${clock(until)}.`
    : `The index was replaced at ${clock(since)}. The new one is being opened and should answer ` +
      `from ${clock(until)} on; until then the one before does.`;
}

function nameInAddress() {
  const name = location.hash.slice(1);
  try {
    return decodeURIComponent(name);
  } catch { // somebody wrote it by hand
    return name;
  }
}

// Fills the list of indices, and chooses the one that the page's address names, or the first.
async function list() {
  const names = (await ask("/v1/indices")).indices.map((one) => one.name);
  const chosen = which.value || nameInAddress();
  if (chosen && !names.includes(chosen)) names.push(chosen); // it is not there: no other in silence
  which.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  if (!names.length) throw new Error("The service's folder holds no index now");
}
function change() {
  described = queried = null;
  at("index").textContent = "Opening the index …";
  describe();
}
which?.addEventListener("change", () => {
  history.replaceState(null, "", `#${encodeURIComponent(which.value)}`);
  change();
});
if (which) {
  addEventListener("hashchange", () => {
    which.replaceChildren();
    change();
  });
}

async function describe() {
  try {
    if (which && !which.value) await list();
    const asked = base();
    const index = await ask(`${asked}/index`);
    if (asked !== base()) return; // another was chosen meanwhile
    tell(index);
    at("access").hidden = true;
    say("");
    await past.begin(asked);
  } catch (error) {
    at("index").textContent = "";
    const asked = !at("access").hidden && !sessionStorage.getItem("token");
    say(asked ? "" : error.message, !asked);
  }
}

// Keeps the heading true: what is said of the index, and of one that takes its place.
async function follow() {
  if (following) return;
  following = true;
  try {
    do {
      const asked = base();
      const index = await ask(`${asked}/index`);
      if (asked !== base()) break; // another was chosen meanwhile
      tell(index);
      if (!at("outdated").hidden) await pause(LOOK / 5);
    } while (!at("outdated").hidden);
  } catch { // the next query says why
  }
  following = false;
}
setInterval(() => {
  if (!described || document.hidden) return;
  follow();
  if (which && document.activeElement !== which) list().catch(() => {}); // new ones
  past.refresh();
}, LOOK);

function tick() {
  const now = new Date();
  at("clock").textContent = now.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  at("clock").dateTime = now.toISOString();
}
tick();
setInterval(tick, 1000);

async function query(file, name, to) {
  const form = new FormData();
  form.append("images", file, name);
  say(`Looking at ${name} …`);
  const full = isStrange(file);
  const answer = await ask(`${to}/query?pictures=true&full=${full}`, { method: "POST", body: form });
  answer.images.forEach((image) => {
    show(image, answer, full ? null : file, to);
    const load = () => (full ? pictureAt(source(image.photo)) : itself(file, image));
    queried = { name: image.name, width: image.width, height: image.height, load };
  });
  if (to === base() && (answer.outdated || answer.manifest_sha256 !== described)) follow();
  past.refresh();
}

// Whether the browser cannot show a file itself; what it can is not sent back by the service.
const isStrange = (file) => /\.tiff?$/i.test(file.name) || file.type === "image/tiff" || file.size > LARGE;

const source = (picture) => `data:${picture.media_type};base64,${picture.data}`;

function show(image, { score, outdated }, file, from) {
  const card = at("result").content.cloneNode(true).firstElementChild;
  const part = (name) => card.querySelector(name);
  if (image.verdict) card.classList.add(image.verdict);
  part(".verdict").textContent = image.verdict ?? "?";
  part(".name").textContent = image.name;
  part(".score").textContent = `${score === "map" ? "" : `${score} `}score ${figure(image.score)}, ` +
    (image.threshold === null ? "no threshold" : `threshold ${figure(image.threshold)}`) +
    (image.review === null ? "" : `, review from ${figure(image.review)}`);
  if (image.threshold === null || image.threshold <= 0) part(".meter").remove();
  else part(".fill").style.width = `${Math.min(100, Math.max(0, (50 * image.score) / image.threshold))}%`;
  part(".notice").hidden = !outdated;
  if (outdated) {
    part(".notice").textContent =
      `By the index before: another took its place at ${clock(outdated.since)}`;
  }
  part("time").textContent = clock(Date.now());
  part("time").dateTime = new Date().toISOString();
  past.attach(card, image, from);
  const stage = part(".stage");
  card.style.setProperty("--ratio", image.width / image.height);
  for (const name of ["photo", "overlay"]) {
    const picture = part(`.${name}`);
    picture.width = image[name].width;
    picture.height = image[name].height;
    picture.src = source(image[name]);
  }
  stage.setAttribute("aria-label", `Look closely at ${image.name}`);
  stage.addEventListener("click", () => lookClosely(image, part(".score").textContent, file, stage));
  part(".photo").alt = `The image ${image.name}`;
  part(".overlay").alt = "The same with the anomaly map over it";
  part("input").addEventListener("input", (event) => {
    part(".overlay").style.opacity = event.target.value / 100;
  });
  if (image.pixel_threshold === null) {
    part(".scale").textContent = "No threshold, so nothing is judged: blue is where the map is highest.";
  }
  part(".unseen").hidden = !partly;
  part(".noted").textContent = image.notes.map((text) => `Note: ${text}.`).join(" ");
  const count = image.regions.length;
  const limit = score !== "map" ? "the map's threshold"
    : image.verdict === "REVIEW" ? "the mark of review" : "the threshold";
  part("h3").textContent = image.pixel_threshold === null
    ? "The index has no threshold to find wrong places by"
    : `${count || "No"} place${count > 1 ? "s" : ""} over ${limit}`;
  const shown = image.regions.filter((region) => region.here);
  if (shown.length < count) part("h3").textContent += `; the ${shown.length} highest are shown`;
  shown.forEach((region) => {
    part("ol").append(place(region, image, stage));
  });
  at("heard").textContent = `${image.name}: ${image.verdict ?? "no verdict"}. ${part("h3").textContent}.`;
  at("results").prepend(card);
  at("how").open = false;
  while (at("results").children.length > KEPT) leave(at("results").lastElementChild);
}

function layer(picture, alt = "") {
  const image = new Image();
  image.src = source(picture);
  image.alt = alt;
  image.draggable = false;
  return image;
}

// Opens the viewer with the file itself, which the browser has, and the map and the places found.
function lookClosely(image, score, file, stage) {
  const shown = image.regions.filter((region) => region.here);
  const list = make("ol");
  const viewer = openViewer({
    title: image.name,
    line: `${image.verdict ? `${image.verdict} · ` : ""}${score} · ${image.width} × ${image.height} pixels`,
    size: [image.width, image.height],
    layers: { photo: layer(image.photo, image.name), heat: layer(image.heat) },
    own: file ? { photo: () => itself(file, image) } : {},
    lost: "Shown small: this browser cannot show the file itself.",
    paths: { outline: image.outline, unseen: image.unseen },
    places: shown.map(({ box }) => [(100 * box[0]) / image.width, (100 * box[1]) / image.height]),
    side: [list],
    closed: () => stage.focus(),
  });
  list.append(...shown.map((region, i) => {
    const item = placeOf(region);
    const look = make("button", "plain look", "Look");
    look.type = "button";
    look.setAttribute("aria-label", `Look at place ${i + 1}`);
    look.addEventListener("click", () => viewer.zoom.look(...region.box));
    item.append(make("span", "n", i + 1), look);
    return item;
  }));
  if (!shown.length) list.replaceWith(make("p", "muted", "No place is over the threshold."));
}

// Resolves to the picture in a file, unless the browser sees another in it than the service.
async function itself(file, image) {
  const own = await pictureAt(await inAddress(file));
  if (own.naturalWidth !== image.width || own.naturalHeight !== image.height) throw new Error("another size");
  return own;
}

// Takes a result off the page, but not out of the count.
function leave(card) {
  const verdict = card.querySelector(".verdict").textContent;
  gone.set(verdict, (gone.get(verdict) ?? 0) + 1);
  card.remove();
  at("gone").hidden = false;
  at("gone").textContent = `The newest ${KEPT} are shown; before them came ` +
    [...gone].map(([name, count]) => `${count} ${name}`).join(", ");
}

function placeOf(region) {
  const item = at("place").content.cloneNode(true).firstElementChild;
  item.querySelector(".here").src = source(region.here);
  item.querySelector(".good").src = source(region.good);
  item.querySelector(".here").alt = "The wrong place";
  item.querySelector(".good").alt = "The good patch that it should look like";
  const match = region.matches[0];
  item.querySelector(".where").textContent =
    `peak ${figure(region.peak)} at ${region.peak_at.join(", ")}; ${region.area} pixels; ` +
    `good: ${match.image.split("/").pop()}`;
  return item;
}

function place(region, image, stage) {
  const item = placeOf(region);
  item.tabIndex = 0;
  const mark = document.createElement("span");
  mark.className = "mark";
  const [left, top, right, bottom] = region.box;
  Object.assign(mark.style, {
    left: `${(100 * left) / image.width}%`, top: `${(100 * top) / image.height}%`,
    width: `${(100 * (right - left)) / image.width}%`,
    height: `${(100 * (bottom - top)) / image.height}%`,
  });
  for (const event of ["mouseenter", "focus"]) item.addEventListener(event, () => stage.append(mark));
  for (const event of ["mouseleave", "blur"]) item.addEventListener(event, () => mark.remove());
  return item;
}

// Goes on after an image that cannot be used, but not after what the next would meet, too.
async function queryAll(files, problems = []) {
  try {
    if (which && !which.value) await list(); // the page was opened just now
  } catch (error) {
    say(error.message, true);
    return false;
  }
  const to = base();
  for (const [place, [file, name]] of files.entries()) {
    try {
      await query(file, name, to);
    } catch (error) {
      problems.push(error.message.startsWith(name) || !error.ofImage ? error.message
        : `${name}: ${error.message}`);
      if (error.ofImage) continue;
      const left = files.length - place;
      if (left > 1) problems.push(`${left} images were not looked at`);
      break;
    }
  }
  say(problems.join("\n"), problems.length > 0);
  return problems.length === 0;
}

const named = (files) => [...files].map((file) => [file, file.name || "pasted image"]);

at("choose").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", async (event) => {
  await queryAll(named(event.target.files));
  event.target.value = "";
});
for (const event of ["dragenter", "dragover"]) {
  document.addEventListener(event, (drag) => {
    drag.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (drag) => {
  if (!drag.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (drag) => {
  drag.preventDefault();
  at("drop").classList.remove("over");
  const dropped = [...drag.dataTransfer.items].filter((one) => one.kind === "file");
  const isFolder = dropped.map((one) => one.webkitGetAsEntry()?.isDirectory);
  const files = dropped.map((one) => one.getAsFile());
  queryAll(named(files.filter((_, i) => !isFolder[i])), files.filter((_, i) => isFolder[i])
    .map((folder) => `${folder.name} is a folder: drop the images in it`));
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) queryAll(named(event.clipboardData.files));
});

at("start").addEventListener("click", async () => {
  if (!navigator.mediaDevices) {
    say("The browser gives the camera to https:// pages and to localhost alone", true);
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    at("video").srcObject = stream;
    at("camera").hidden = false;
    say("");
  } catch (error) {
    say(`No camera: ${error.message}`, true);
  }
});
at("stop").addEventListener("click", stop);
function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  at("camera").hidden = true;
  at("keep").checked = false;
}

async function shoot() {
  const video = at("video");
  if (!video.videoWidth) return false;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const shot = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return queryAll([[shot, `camera, ${new Date().toLocaleTimeString()}`]]);
}
at("shoot").addEventListener("click", shoot);
at("keep").addEventListener("change", async () => {
  while (stream && at("keep").checked) if (!(await shoot())) break;
  at("keep").checked = false;
});

at("region").addEventListener("click", async () => {
  try {
    await editRegion({ base: base(), ask, fetched, queried, done: follow, opener: at("region") });
  } catch (error) {
    say(error.message, true);
  }
});

const past = openHistory({ ask, fetched, say, figure, clock, query, kept: KEPT });

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  at("token").value = "";
  describe();
});
describe();

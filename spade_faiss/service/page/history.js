// What the service keeps: results that survive a reload, those that somebody called good, and how
// these are added to the index.
import { make } from "./viewer.js";

const at = (id) => document.getElementById(id);
const LOOK = 500; // milliseconds between looks at a step that is being made
const ROWS = 50; // of the table at a time
const WORKING = ["trying", "adding", "returning"];
const BUSY = { trying: "Trying", adding: "Adding", returning: "Stepping back" };
const NAME = "spade-faiss-person"; // where the browser keeps who is at it
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// From a day's first moment to the next one's, by the browser's clock.
function spanOf(day) {
  const since = day ? new Date(`${day}T00:00`) : new Date(new Date().setHours(0, 0, 0, 0));
  const until = new Date(since);
  until.setDate(since.getDate() + 1);
  return { since: since.toISOString(), until: until.toISOString() };
}

function today() {
  const now = new Date();
  const two = (n) => String(n).padStart(2, "0");
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}

const inWords = (counts) => ["NG", "REVIEW", "OK", "none"].filter((name) => counts[name] || name !== "none")
  .map((name) => `${counts[name]} ${name === "none" ? "without a verdict" : name}`).join(", ");

// Returns what the page calls: begin, once an index answers at some place; refresh, when something may
// have changed; attach, for each result and the place that it is from.
//   ask, fetched, say, figure, clock, query    functions of the page
//   kept                                       how many results it shows
export function openHistory({ ask, fetched, say, figure, clock, query, kept }) {
  let on = false; // whether results are kept
  let place = null; // of the index that is shown, in the service's paths
  let product = ""; // its name
  let feedback = null; // what was said last of those that were called good
  let following = false;
  let refreshing = false;
  let shown = ""; // which queue is shown
  let seen = 0; // the number of the newest result, when that was asked for last
  let day = ""; // which day it was then
  let marking = null; // the card and result that the dialog is about
  const buttons = new Map(); // of results on the page, by their number

  const post = (path, body) => ask(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const judged = (past) => `${past.kind === "map" ? "" : `${past.kind} `}score ${figure(past.score)}, ` +
    (past.threshold === null ? "no threshold" : `threshold ${figure(past.threshold)}`);

  async function picture(image, past) {
    image.alt = `The anomaly map over ${past.name}`;
    image.src = await fetched(`${place}/history/picture?id=${past.id}`);
  }

  // Results ------------------------------------------------------------------------------------

  function tellMark(button, past) {
    const marked = past.marked_by !== null;
    button.textContent = marked ? "Not good after all" : "This was good";
    button.setAttribute("aria-label", `${button.textContent}: ${past.name}`);
    const card = button.closest(".result");
    card?.querySelector(".marked")?.remove();
    if (marked) card?.querySelector(".figures").append(make("p", "marked", `Called good by ${past.marked_by}`));
  }

  // Gives a result's card what can be done about it.
  function attach(card, past, from) {
    const button = card.querySelector(".call-good");
    button.hidden = !past.id || past.kept === false;
    if (button.hidden) return;
    const own = { ...past, from, marked_by: past.marked_by ?? null };
    buttons.set(past.id, { button, own });
    tellMark(button, own);
    button.addEventListener("click", () => (own.marked_by === null ? call(own, button) : uncall(own)));
  }

  function take(past) {
    const known = buttons.get(past.id);
    if (known) tellMark(known.button, Object.assign(known.own, past));
    const row = at("history-rows").querySelector(`[data-id="${past.id}"]`);
    const now = rowOf(past);
    if (row && row.textContent !== now.textContent) row.replaceWith(now);
  }

  function call(past, button) {
    marking = { past, button };
    at("good-title").textContent = `${past.name} was good`;
    at("good-by").value = localStorage.getItem(NAME) ?? "";
    at("good-remark").value = "";
    at("good-problem").textContent = "";
    at("good").showModal();
    if (at("good-by").value) at("good-remark").focus();
  }

  async function uncall(past) {
    try {
      take(await ask(`${past.from}/feedback?id=${past.id}`, { method: "DELETE" }));
      await refresh();
    } catch (error) {
      say(error.message, true);
    }
  }

  function cardOf(past) {
    const card = at("past").content.cloneNode(true).firstElementChild;
    const part = (name) => card.querySelector(name);
    if (past.verdict) card.classList.add(past.verdict);
    part(".verdict").textContent = past.verdict ?? "?";
    part(".name").textContent = past.name;
    part(".score").textContent = `${judged(past)}; ${counted(past.places, "place")} marked`;
    part("time").textContent = new Date(past.time).toLocaleString();
    part("time").dateTime = past.time;
    part(".again").hidden = !past.kept;
    part(".again").setAttribute("aria-label", `Look again: ${past.name}`);
    const from = place;
    part(".again").addEventListener("click", () => again(past, from));
    picture(part("img"), past).catch((error) => say(error.message, true));
    attach(card, past, place);
    return card;
  }

  // Queries an image that was kept by the index as it is now.
  async function again(past, from) {
    try {
      const blob = await ask(`${from}/history/image?id=${past.id}`, {}, (response) => response.blob());
      await query(new File([blob], past.name, { type: blob.type }), past.name, from);
      say("");
    } catch (error) {
      say(error.message, true);
    }
  }

  // The table ----------------------------------------------------------------------------------

  const asked = (more = {}) => {
    const verdict = at("history-verdict").value;
    return new URLSearchParams({ ...spanOf(at("history-day").value), ...(verdict && { verdict }), ...more });
  };

  function rowOf(past) {
    const row = make("tr");
    const cell = (text) => row.append(make("td", "", text));
    cell(clock(past.time));
    const verdict = make("td");
    verdict.append(make("span", `word ${past.verdict ?? ""}`, past.verdict ?? "?"));
    row.append(verdict);
    cell(past.name);
    cell(figure(past.score));
    cell(past.threshold === null ? "" : figure(past.threshold));
    cell(past.marked_by === null ? "" : past.marked_by + (past.remark ? `: ${past.remark}` : ""));
    row.dataset.id = past.id;
    return row;
  }

  // Calls `show` with the results that are asked for, unless others are by then.
  async function lookUp(show, more = {}) {
    const [from, question] = [place, String(asked())];
    try {
      const answer = await ask(`${place}/history?${asked({ limit: ROWS, ...more })}`);
      if (from !== place || question !== String(asked())) return;
      show(answer);
      at("history-counts").textContent = inWords(answer.counts);
    } catch (error) {
      at("history-counts").textContent = error.message;
    }
  }

  const showRows = () => lookUp(({ results, more }) => {
    at("history-rows").replaceChildren(...results.map(rowOf));
    at("history-more").hidden = !more;
  });

  const showOlder = () => lookUp(({ results, more }) => {
    at("history-rows").append(...results.map(rowOf));
    at("history-more").hidden = !more;
  }, { before: at("history-rows").lastElementChild.dataset.id });

  // Puts what came since on top; older ones that were asked for stay.
  const showNewer = () => lookUp(({ results, more }) => {
    const rows = at("history-rows");
    const newest = Number(rows.firstElementChild?.dataset.id ?? 0);
    if (!results.some((past) => past.id <= newest)) { // so many came that there is a gap
      rows.replaceChildren(...results.map(rowOf));
      at("history-more").hidden = !more;
      return;
    }
    const most = Math.max(ROWS, rows.children.length);
    rows.prepend(...results.filter((past) => past.id > newest).map(rowOf));
    while (rows.children.length > most) {
      rows.lastElementChild.remove();
      at("history-more").hidden = false;
    }
  });

  async function save() {
    try {
      const table = await ask(`${place}/history.csv?${asked()}`, {}, (response) => response.blob());
      const link = make("a");
      link.href = URL.createObjectURL(table);
      link.download = `${product} ${at("history-day").value}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      at("history-counts").textContent = error.message;
    }
  }

  // The queue ----------------------------------------------------------------------------------

  function itemOf(past) {
    const item = at("queued").content.cloneNode(true).firstElementChild;
    item.querySelector(".name").textContent = past.name;
    item.querySelector(".by").textContent = `${past.verdict ?? "no verdict"}, ${judged(past)}; ` +
      `${past.marked_by}, ${new Date(past.marked_at).toLocaleString()}${past.remark ? `: ${past.remark}` : ""}`;
    const off = item.querySelector(".off");
    off.setAttribute("aria-label", `Take off: ${past.name}`);
    const from = place;
    off.addEventListener("click", async () => {
      await uncall({ ...past, from });
      (at("queue-items").querySelector("button") ?? at("queue-title")).focus();
    });
    picture(item.querySelector("img"), past).catch((error) => tell(error.message));
    return item;
  }

  const tell = (text) => { if (at("queue-status").textContent !== text) at("queue-status").textContent = text; };

  function showFeedback(said) {
    feedback = said;
    const { queue, preview, step, state } = said;
    const working = WORKING.includes(state);
    const any = queue.length > 0 || step !== null || working;
    at("queue").hidden = !any;
    at("to-queue").hidden = !any;
    at("to-queue").textContent = `Called good (${queue.length})`;
    at("queue-title").textContent = `Called good: ${counted(queue.length, "picture")}`;
    const now = JSON.stringify(queue);
    if (now !== shown) at("queue-items").replaceChildren(...queue.map(itemOf));
    shown = now;
    queue.forEach(take);
    at("try").hidden = at("queue-about").hidden = queue.length === 0;
    at("try").disabled = working || said.refused !== null || preview !== null;
    at("add").hidden = preview === null;
    at("add").disabled = working || said.refused !== null;
    if (preview) at("add").textContent = `Add ${counted(preview.images_after - preview.images_before, "picture")}`;
    at("back").hidden = step === null;
    at("back").disabled = working || said.refused !== null;
    at("step").textContent = step === null ? "" : `${step.by || "Somebody"} added ` +
      `${counted(step.images, "picture")} on ${new Date(step.time).toLocaleString()}; the threshold went ` +
      `${change(step.threshold_before, step.threshold_after)}.`;
    const notes = preview && !working ? preview.notes : [];
    at("queue-notes").hidden = notes.length === 0;
    at("queue-notes").replaceChildren(...notes.map((text) => make("li", "", `Note: ${text}.`)));
    if (working) tell(`${BUSY[state]}: ${said.progress ?? "begins"}. The index before answers meanwhile.`);
    else if (state === "failed") tell(said.problem);
    else if (preview) tell(inSentences(preview));
    else if (said.refused && queue.length) tell(`Nothing can be added here: ${said.refused}.`);
  }

  function change(before, after) {
    const value = (limit) => (limit === null ? "none" : figure(limit));
    if (before === null || after === null) return `from ${value(before)} to ${value(after)}`;
    const part = before > 0 ? 100 * (after / before - 1) : 0;
    const more = Math.abs(part) < 0.05 ? "" : ` (${Number(Math.abs(part).toPrecision(2))} % ${part > 0 ? "higher" : "lower"})`;
    return `from ${value(before)} to ${value(after)}${more}`;
  }

  function inSentences(preview) {
    const lines = [
      `There would be ${preview.images_after} good images, now ${preview.images_before}.`,
      `The threshold would go ${change(preview.threshold_before, preview.threshold_after)}.`,
    ];
    if (preview.passed) {
      lines.push(`By their scores, ${counted(preview.passed, "result")} that ` +
        `${preview.passed === 1 ? "was" : "were"} NG, and that nobody called good, would pass.`);
    } else if (preview.passed === 0) lines.push("No other result that was NG would pass by its score.");
    return lines.join(" ");
  }

  function person() {
    const name = at("person").value.trim();
    if (name) localStorage.setItem(NAME, name);
    else {
      tell("Give your name first: it is kept with the change.");
      at("person").focus();
    }
    return name;
  }

  // Does a step, and follows it until it is done or could not be.
  async function step(begin, done) {
    at("queue-title").focus();
    try {
      showFeedback(await begin());
      await follow();
      if (feedback.state === "idle" && done) tell(done);
    } catch (error) {
      await refresh();
      tell(error.message);
    }
  }

  async function follow() {
    if (following) return;
    following = true;
    const from = place;
    try {
      while (from === place && WORKING.includes(feedback.state)) {
        await pause(LOOK);
        const said = await ask(`${from}/feedback`);
        if (from === place) showFeedback(said);
      }
    } finally {
      following = false;
    }
  }

  // All ----------------------------------------------------------------------------------------

  async function refresh() {
    if (!on || refreshing) return;
    refreshing = true;
    const from = place;
    try {
      const { counts, results } = await ask(`${from}/history?${new URLSearchParams({ ...spanOf(""), limit: 1 })}`);
      if (from === place) at("day").textContent = `Today: ${inWords(counts)}`;
      const [newest, before] = [results[0]?.id ?? 0, day];
      day = today();
      if (at("history-day").value === before && before !== day) { // midnight passed
        at("history-day").value = day;
        await showRows();
      } else if (at("history-day").value === day && newest !== seen) await showNewer();
      seen = newest;
      const said = following ? null : await ask(`${from}/feedback`);
      if (said && from === place) showFeedback(said);
    } catch { // the next query says why
    }
    refreshing = false;
    if (feedback && WORKING.includes(feedback.state)) follow().catch(() => {});
  }

  async function begin(to) {
    const newest = await ask(`${to}/history?limit=${kept}`);
    if (place === to) return;
    if (on) { // another index's results, which come back with it
      at("results").replaceChildren();
      at("gone").hidden = true;
      buttons.clear();
    }
    place = to;
    product = newest.index;
    if (at("product")) at("product").textContent = product;
    document.title = `${product}: spade-faiss`;
    on = newest.refused === null;
    if (!on) return;
    tell("");
    for (const one of document.querySelectorAll(".needs-history")) one.hidden = false;
    for (const id of ["day", "history", "to-history"]) at(id).hidden = false;
    day = at("history-day").value = today();
    seen = newest.results[0]?.id ?? 0;
    at("person").value = localStorage.getItem(NAME) ?? "";
    at("results").append(...newest.results.filter((past) => !buttons.has(past.id)).map(cardOf));
    at("how").open = newest.results.length === 0;
    await showRows();
    await refresh();
  }

  at("good").querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { past, button } = marking;
    try {
      const by = at("good-by").value.trim();
      take(await post(`${past.from}/feedback`, { id: past.id, by, remark: at("good-remark").value.trim() }));
      localStorage.setItem(NAME, by);
      at("person").value ||= by;
      at("good").close();
      button.focus();
      await refresh();
    } catch (error) {
      at("good-problem").textContent = error.message;
    }
  });
  at("good-cancel").addEventListener("click", () => at("good").close());
  at("try").addEventListener("click", () => step(() => ask(`${place}/feedback/preview`, { method: "POST" })));
  at("add").addEventListener("click", () => {
    const { generation } = feedback.preview;
    const by = person();
    if (by) step(() => post(`${place}/feedback/add`, { generation, by }), "Added: the index knows them now.");
  });
  at("back").addEventListener("click", () => {
    const by = person();
    if (by) step(() => post(`${place}/feedback/back`, { by }), "Stepped back: the index is as it was before.");
  });
  for (const id of ["history-day", "history-verdict"]) at(id).addEventListener("change", () => showRows());
  at("history-more").addEventListener("click", showOlder);
  for (const name of ["queue", "history"]) {
    at(`to-${name}`).addEventListener("click", (event) => {
      event.preventDefault(); // the address may hold an index's name
      at(name).scrollIntoView();
      at(`${name}-title`).focus({ preventScroll: true });
    });
  }
  at("history-csv").addEventListener("click", save);

  return { begin, refresh, attach };
}

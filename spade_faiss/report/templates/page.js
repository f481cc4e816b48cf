"use strict";
{
  const SVG = "http://www.w3.org/2000/svg";
  const viewer = document.getElementById("viewer");
  const cards = [...document.querySelectorAll(".card")];

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function figure(value) {
    return String(Number(value.toPrecision(4)));
  }

  function picture(card, name, className, alt = "") {
    const image = new Image();
    image.className = className;
    image.alt = alt;
    image.decoding = "async";
    image.draggable = false;
    image.src = "data:image/webp;base64," + card.pictures[name];
    return image;
  }

  function vector(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // What a card shows is text in the file until it is needed.
  function dataOf(element) {
    return JSON.parse(element.querySelector(":scope > script").textContent);
  }

  function fillStage(stage, card) {
    const lines = vector("svg", { viewBox: `0 0 ${card.size.join(" ")}`, "aria-hidden": "true" });
    const drawn = [["unseen", "unseen"], ["outline", "edge"], ["truth", "edge"],
                   ["outline", "outline"], ["truth", "truth"]];
    for (const [path, kind] of drawn) {
      if (card.paths[path]) lines.append(vector("path", { d: card.paths[path], class: kind }));
    }
    stage.replaceChildren(
      picture(card, "photo", "photo", card.name), picture(card, "heat", "heat"),
      picture(card, "map", "map"), lines);
    card.regions.forEach((region, i) => {
      const badge = make("span", "n", i + 1);
      badge.style.left = region.box[0] + "%";
      badge.style.top = region.box[1] + "%";
      stage.append(badge);
    });
  }

  function fillTile(tile, card, name, box, alt) {
    const edge = make("i");
    ["left", "top", "width", "height"].forEach((side, i) => { edge.style[side] = box[i] + "%"; });
    tile.replaceChildren(picture(card, name, "", alt), edge);
  }

  function fillTiles(tiles, card, i) {
    const region = card.regions[i];
    fillTile(tiles[0], card, "here" + i, region.here, `Place ${i + 1}`);
    fillTile(tiles[1], card, "good" + i, region.good, `Good patch that place ${i + 1} was matched with`);
  }

  function fill(element) {
    const card = dataOf(element);
    fillStage(element.querySelector(".stage"), card);
    element.querySelectorAll(".pair").forEach((pair, i) => fillTiles(pair.querySelectorAll(".tile"), card, i));
  }

  function empty(element) {
    for (const part of element.querySelectorAll(".stage, .tile")) part.replaceChildren();
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) fill(entry.target);
      else if (entry.target.querySelector(".photo")) empty(entry.target);
    }
  }, { rootMargin: "700px" });
  const pictured = cards.filter((element) => element.querySelector(".stage"));
  for (const element of pictured) near.observe(element);
  addEventListener("beforeprint", () => {
    for (const element of pictured) if (!element.hidden) fill(element);
  });

  // Views: the same choice everywhere.
  function setView(view) {
    document.body.dataset.view = view;
    for (const input of document.querySelectorAll("[data-views] input")) {
      input.checked = input.value === view;
    }
  }

  document.addEventListener("input", (event) => {
    const input = event.target;
    if (input.matches("[data-views] input")) setView(input.value);
    if (!input.matches("[data-strength]")) return;
    document.documentElement.style.setProperty("--strength", input.value / 100);
    for (const other of document.querySelectorAll("[data-strength]")) other.value = input.value;
    setView("overlay");
  });

  // By which score an evaluation's misses are chosen.
  document.addEventListener("change", (event) => {
    if (event.target.name === "by") document.body.dataset.by = event.target.value;
  });

  // The viewer.
  let shown = null;

  function neighbours() {
    const all = [...shown.closest(".cards").querySelectorAll(".card:not([hidden])")];
    return all.filter((element) => element.querySelector(".stage"));
  }

  function show(element) {
    shown = element;
    const card = dataOf(element);
    const stage = viewer.querySelector(".stage");
    stage.style.setProperty("--w", card.size[0]);
    stage.style.setProperty("--h", card.size[1]);
    fillStage(stage, card);
    document.getElementById("viewer-name").textContent = card.name;
    document.getElementById("viewer-line").textContent =
      [...[...element.querySelector(".line").children].map((one) => one.textContent),
       `${card.pixels[0]} × ${card.pixels[1]} pixels`].join(" · ");
    const list = document.getElementById("viewer-regions");
    list.replaceChildren(...card.regions.map((_, i) => regionOf(card, i)));
    if (card.more) list.append(make("p", "note", `and ${card.more} more, of lower peaks`));
    if (card.said) list.append(...card.said.map((text) => make("p", "note", text)));
    else if (!card.regions.length) list.append(make("p", "note", "No place is over the threshold."));
    const all = neighbours();
    const at = all.indexOf(shown);
    viewer.querySelector('[data-step="-1"]').disabled = at <= 0;
    viewer.querySelector('[data-step="1"]').disabled = at >= all.length - 1;
    viewer.querySelector(".side").scrollTop = 0;
    if (!viewer.open) viewer.showModal();
  }

  function regionOf(card, i) {
    const region = card.regions[i];
    const element = make("section", "region");
    const head = make("h3");
    head.append(make("span", "n", i + 1), make("span", "", `Peak ${figure(region.peak)}`),
                make("span", "", `${region.area} px`));
    const two = make("div", "two");
    const tiles = ["Here", `Good match: ${region.image}`].map((words) => {
      const box = make("figure");
      const tile = make("div", "tile");
      box.append(tile, make("figcaption", "", words));
      two.append(box);
      return tile;
    });
    fillTiles(tiles, card, i);
    const details = make("details");
    const table = make("table");
    const top = table.insertRow();
    for (const word of ["Level", "Distance", "Good image"]) top.append(make("th", "", word));
    for (const match of region.matches) {
      const row = table.insertRow();
      for (const text of [match.level, figure(match.distance), match.image]) {
        row.append(make("td", "", text));
      }
    }
    details.append(make("summary", "", "Level by level"), table);
    element.append(head, two, details);
    return element;
  }

  function step(by) {
    const all = neighbours();
    const next = all[all.indexOf(shown) + by];
    if (next) show(next);
  }

  document.addEventListener("click", (event) => {
    const stage = event.target.closest("button.stage");
    const mark = event.target.closest("[data-open]");
    const by = event.target.closest("[data-step]");
    if (stage) show(stage.closest(".card"));
    if (mark) {
      const wanted = cards.find((one) => one.querySelector(".name").textContent === mark.dataset.open);
      if (wanted) show(wanted);
    }
    if (by) step(Number(by.dataset.step));
    if (event.target === viewer || event.target.closest("#viewer-close")) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  viewer.addEventListener("close", () => {
    viewer.querySelector(".stage").replaceChildren();
    if (shown) shown.querySelector(".stage").focus();
  });

  // What another threshold would say. The rule is that of spade_faiss/verdict/judge.py.
  function verdictOf(score, threshold, review) {
    if (score > threshold) return "NG";
    return review === null || score < review ? "OK" : "REVIEW";
  }

  function tallyOf(scores, threshold, review) {
    const count = { NG: 0, REVIEW: 0, OK: 0 };
    for (const score of scores) count[verdictOf(score, threshold, review)] += 1;
    return count;
  }

  // Where a score is on a histogram's axis, in percent.
  function placeOf(score, known) {
    return Math.min(Math.max((100 * (score - known.low)) / (known.high - known.low), 0), 100);
  }

  // Bars that part at the threshold, and by verdict.
  function barsOf(known, threshold) {
    const width = (known.high - known.low) / 48;
    const bins = new Map();
    for (const score of known.scores) {
      const shown = Math.min(Math.max(score, known.low), known.high);
      let bin = Math.ceil((shown - threshold) / width) - 1;
      const word = verdictOf(score, threshold, known.review);
      bin = word === "NG" ? Math.max(bin, 0) : Math.min(bin, -1);
      if (!bins.has(bin)) bins.set(bin, { OK: 0, REVIEW: 0, NG: 0 });
      bins.get(bin)[word] += 1;
    }
    const most = Math.max(...[...bins.values()].map((bin) => bin.OK + bin.REVIEW + bin.NG));
    const bars = [];
    for (const [bin, count] of bins) {
      const left = placeOf(threshold + bin * width, known);
      const right = placeOf(threshold + (bin + 1) * width, known);
      let foot = 0;
      for (const word of ["OK", "REVIEW", "NG"]) {
        if (!count[word]) continue;
        const bar = make("i", word.toLowerCase());
        const height = (100 * count[word]) / most;
        Object.assign(bar.style, {
          left: `${left}%`, width: `${Math.max(right - left, 0.3)}%`, bottom: `${foot}%`, height: `${height}%`,
        });
        foot += height;
        bars.push(bar);
      }
    }
    return bars;
  }

  // A slider whose middle is the threshold itself, and a field for any number.
  function tryThresholds(element, follow) {
    const known = JSON.parse(element.dataset.known);
    const range = element.querySelector("[type=range]");
    const field = element.querySelector("[type=number]");
    const back = element.querySelector("button");
    const lines = element.closest(".tried").querySelectorAll(".histogram :is(.alarm, .limit)");
    const step = (known.high - known.low) / 400;
    range.min = -Math.ceil((known.threshold - known.low) / step);
    range.max = Math.ceil((known.high - known.threshold) / step);
    let tried = known.threshold;
    let waiting = 0;

    const show = () => {
      waiting = 0;
      for (const line of lines) line.style.left = `${placeOf(tried, known)}%`;
      follow(known, tried, tried !== known.threshold);
    };
    const set = (value, from) => {
      tried = value;
      if (from !== range) range.value = Math.round((value - known.threshold) / step);
      if (from !== field) field.value = figure(value);
      range.setAttribute("aria-valuetext", figure(value));
      back.disabled = value === known.threshold;
      waiting ||= requestAnimationFrame(show);
    };
    range.addEventListener("input", () => set(known.threshold + Number(range.value) * step, range));
    field.addEventListener("input", () => {
      if (Number.isFinite(field.valueAsNumber)) set(field.valueAsNumber, field);
    });
    back.addEventListener("click", () => { set(known.threshold); range.focus(); });
    set(known.threshold);
  }

  for (const whatIf of document.querySelectorAll(".defects .what-if")) {
    tryThresholds(whatIf, (known, tried, moved) => {
      const parts = [[known.scores, "defects found"], [known.good, "good called wrong"]].map(([scores, what]) => {
        const n = tallyOf(scores, tried, null).NG;
        return `${n} of ${scores.length} ${what} (${figure((100 * n) / scores.length)} %)`;
      });
      whatIf.querySelector("output").replaceChildren(
        `At ${figure(tried)}: `, make("b", "", parts.join(", ")),
        moved ? `. The figures around are of the threshold ${figure(known.threshold)}.` : ".");
    });
  }

  // Filters and sorting.
  const list = document.getElementById("cards");
  if (list) {
    const items = cards.map((element, at) => ({
      at, element, verdict: element.dataset.verdict, score: Number(element.dataset.score ?? -1),
      failed: element.dataset.score === undefined, name: element.querySelector(".name").textContent,
      sought: element.querySelector(".name").textContent.toLowerCase(),
    }));
    const names = new Intl.Collator(undefined, { numeric: true });
    const orders = {
      worst: (a, b) => b.score - a.score || a.at - b.at,
      best: (a, b) => a.failed - b.failed || a.score - b.score || a.at - b.at,
      name: (a, b) => names.compare(a.name, b.name),
      "name-back": (a, b) => names.compare(b.name, a.name),
    };
    const search = document.getElementById("search");
    const filter = document.getElementById("filter");

    const choose = () => {
      const text = search.value.trim().toLowerCase();
      const verdict = filter.querySelector("input:checked").value;
      let count = 0;
      for (const item of items) {
        const there = (!verdict || item.verdict === verdict) && item.sought.includes(text);
        item.element.hidden = !there;
        count += there;
      }
      document.getElementById("count").textContent =
        count === items.length ? `${count} shown` : `${count} of ${items.length} shown`;
      document.getElementById("nothing").hidden = count > 0;
    };
    const tallies = [...filter.querySelectorAll("input[value]:not([value=''])")].map((input) => {
      const shown = make("b");
      input.nextElementSibling.append(" ", shown);
      return [input.value, shown];
    });
    const tally = () => {
      for (const [word, shown] of tallies) {
        shown.textContent = items.filter((item) => item.verdict === word).length;
      }
    };
    search.addEventListener("input", choose);
    filter.addEventListener("change", choose);
    document.getElementById("sort").addEventListener("change", (event) => {
      items.sort(orders[event.target.value]);
      list.append(...items.map((item) => item.element));
    });
    tally();
    choose();

    const judge = (item, threshold, review) => {
      const word = verdictOf(item.score, threshold, review);
      const ratio = item.element.querySelector(".ratio");
      if (ratio) ratio.textContent = threshold > 0 ? `${(item.score / threshold).toFixed(2)} × threshold` : "";
      if (word === item.verdict) return;
      item.verdict = item.element.dataset.verdict = word;
      const chip = item.element.querySelector(".chip");
      chip.textContent = word;
      chip.className = `chip ${word.toLowerCase()}`;
      item.element.querySelector(".bar i").className = word.toLowerCase();
    };
    const whatIf = document.querySelector("header .what-if");
    const upper = document.querySelector("header .histogram .upper");
    const drawn = upper ? [...upper.children] : [];
    if (whatIf) tryThresholds(whatIf, (known, tried, moved) => {
      upper.replaceChildren(...(moved ? barsOf(known, tried) : drawn));
      const count = tallyOf(known.scores, tried, known.review);
      const total = known.scores.length + known.failed;
      const said = [make("span", count.NG ? "ng" : "ok", count.NG),
                    ` of ${total} ${count.NG === 1 ? "is" : "are"} not good`];
      if (known.review !== null) said.push(", ", make("span", "review", count.REVIEW), " to review");
      document.getElementById("said").replaceChildren(...said);
      document.body.toggleAttribute("data-tried", moved);
      const text = Object.entries(count).filter(([word]) => word !== "REVIEW" || known.review !== null)
        .map(([word, n]) => `${n} ${word}`).join(", ");
      whatIf.querySelector("output").replaceChildren(...(moved ? [
        `At ${figure(tried)}: `, make("b", "", text),
        `. Only this page follows: scores.csv, outlines and places are of the threshold ${figure(known.threshold)}. For all of it: `,
        make("code", "", `query --threshold ${figure(tried)}`)] : []));
      list.style.setProperty("--limit", `${Math.min(Math.max((100 * tried) / list.dataset.full, 0), 100)}%`);
      for (const figureOf of document.querySelectorAll(".timeline")) {
        const first = Number(figureOf.dataset.first);
        const frames = known.scores.slice(first, first + Number(figureOf.dataset.frames));
        figureOf.querySelector(".tally").textContent = tallyOf(frames, tried, known.review).NG;
        const height = Math.min(Math.max((100 * tried) / figureOf.dataset.top, 0), 100);
        figureOf.querySelector(".limit").style.bottom = `${height}%`;
        figureOf.querySelector("svg.over").style.clipPath = `inset(-4px 0 ${height}%)`;
        for (const mark of figureOf.querySelectorAll(".mark")) {
          mark.classList.toggle("over", parseFloat(mark.style.bottom) > height);
        }
      }
      for (const item of items) if (!item.failed) judge(item, tried, known.review);
      tally();
      choose();
    });
  }
  document.documentElement.dataset.ready = "";
}

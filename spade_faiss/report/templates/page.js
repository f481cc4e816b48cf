// Needs viewer.js before it.
{
  const cards = [...document.querySelectorAll(".card")];

  function figure(value) {
    return String(Number(value.toPrecision(4)));
  }

  function picture(card, name, className = "", alt = "") {
    const image = new Image();
    image.className = className;
    image.alt = alt;
    image.decoding = "async";
    image.draggable = false;
    image.src = "data:image/webp;base64," + card.pictures[name];
    return image;
  }

  // What a card shows is text in the file until it is needed.
  function dataOf(element) {
    return JSON.parse(element.querySelector(":scope > script").textContent);
  }

  // A card as the viewer takes it.
  function pictureOf(card) {
    const layers = { photo: picture(card, "photo", "", card.name), heat: picture(card, "heat"), map: picture(card, "map") };
    return { title: card.name, size: card.size, layers, paths: card.paths, places: card.regions.map((region) => region.box) };
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
    fillLayers(element.querySelector(".stage"), pictureOf(card));
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
    const all = neighbours();
    const at = all.indexOf(shown);
    const step = Object.fromEntries([["before", all[at - 1]], ["after", all[at + 1]]]
      .map(([name, other]) => [name, other && (() => show(other))]));
    const list = make("div");
    list.id = "viewer-regions";
    const own = Object.fromEntries(Object.entries(card.closeup ?? {})
      .map(([name, address]) => [name, () => pictureAt(address)]));
    const viewer = openViewer({
      ...pictureOf(card), own, step, side: [list],
      line: [...[...element.querySelector(".line").children].map((one) => one.textContent),
             `${card.pixels[0]} × ${card.pixels[1]} pixels`].join(" · "),
      note: card.closeup || card.side >= Math.max(...card.pixels) ? ""
        : "Shown small: its picture at its own resolution was not kept.",
      lost: "Shown small: the folder closeups, which holds larger pictures, is not beside this page.",
      closed: () => shown.querySelector(".stage").focus(),
    });
    list.append(...card.regions.map((_, i) => regionOf(card, i, viewer.zoom)));
    if (card.more) list.append(make("p", "note", `and ${card.more} more, of lower peaks`));
    if (card.said) list.append(...card.said.map((text) => make("p", "note", text)));
    else if (!card.regions.length) list.append(make("p", "note", "No place is over the threshold."));
  }

  function regionOf(card, i, zoom) {
    const region = card.regions[i];
    const element = make("section", "region");
    const head = make("h3");
    const look = make("button", "", "Look");
    const [left, top, width, height] = region.box.map((side, at) => (side * card.size[at % 2]) / 100);
    look.type = "button";
    look.setAttribute("aria-label", `Look at place ${i + 1}`);
    look.addEventListener("click", () => zoom.look(left, top, left + width, top + height));
    head.append(make("span", "n", i + 1), look, make("span", "", `Peak ${figure(region.peak)}`),
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
    const titles = table.insertRow();
    for (const word of ["Level", "Distance", "Good image"]) titles.append(make("th", "", word));
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

  document.addEventListener("click", (event) => {
    const stage = event.target.closest("button.stage");
    const mark = event.target.closest("[data-open]");
    if (stage) show(stage.closest(".card"));
    if (mark) {
      const wanted = cards.find((one) => one.querySelector(".name").textContent === mark.dataset.open);
      if (wanted) show(wanted);
    }
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

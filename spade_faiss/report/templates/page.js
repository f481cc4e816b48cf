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
    for (const label of filter.querySelectorAll("input[value]:not([value=''])")) {
      const count = items.filter((item) => item.verdict === label.value).length;
      label.nextElementSibling.append(" ", make("b", "", count));
    }
    search.addEventListener("input", choose);
    filter.addEventListener("change", choose);
    document.getElementById("sort").addEventListener("change", (event) => {
      items.sort(orders[event.target.value]);
      list.append(...items.map((item) => item.element));
    });
    choose();
  }
  document.documentElement.dataset.ready = "";
}

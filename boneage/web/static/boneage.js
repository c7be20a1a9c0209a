// The page's behaviour. The server makes every piece of HTML; this file sends the images and puts the pieces in place.
// Names of files never leave the browser.
"use strict";

const main = document.getElementById("main");
const said = main.dataset; // texts and addresses, written by the server
const cases = document.getElementById("cases");
const status = document.getElementById("status");
const picker = document.getElementById("files");
const images = new WeakMap(); // card -> File
const RETRIES = 5;
let line = Promise.resolve(); // files are read one after the other: twenty at once would fill the server's queue

const announce = (text) => { status.textContent = text; };
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const cardOf = (element) => element.closest(".card");
const nameOf = (card) => card.querySelector("h2").textContent;

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function problem(text) {
  const paragraph = clone("problem");
  paragraph.textContent = text;
  return paragraph;
}

function busy(card, text) {
  const note = card.querySelector(".busy");
  note.textContent = text ? `${text} …` : "";
  note.hidden = !text;
  card.setAttribute("aria-busy", String(Boolean(text)));
  for (const button of card.querySelectorAll("button[type=submit]")) button.disabled = Boolean(text);
}

// Send an image and its form; put the HTML that comes back, an answer or a problem, into `place`.
async function ask(address, form, place, text) {
  const card = cardOf(place);
  form.set("image", images.get(card), "image");
  busy(card, text);
  try {
    for (let attempt = 0; ; attempt++) {
      const response = await fetch(address, { method: "POST", body: form, headers: { "X-CSRF-Token": said.csrf } });
      const wait = Number(response.headers.get("Retry-After"));
      if (!wait || attempt === RETRIES) {
        if (response.headers.get("Content-Type").includes("json")) { // refused before the page's server saw it
          place.replaceChildren(problem((await response.json()).detail));
        } else {
          place.innerHTML = await response.text();
        }
        return response.ok;
      }
      busy(card, said.waiting);
      await pause(wait);
    }
  } catch {
    place.replaceChildren(problem(said.unreachable));
    return false;
  } finally {
    busy(card, "");
  }
}

function add(files) {
  let first = true;
  for (const file of files) {
    const item = clone("card");
    const card = item.querySelector(".card");
    card.querySelector("h2").textContent = file.name;
    images.set(card, file);
    cases.append(item);
    document.body.classList.add("started");
    const place = card.querySelector(".ask");
    if (file.size > Number(said.maxBytes)) {
      place.append(problem(said.tooLarge));
      continue;
    }
    const takesFocus = first;
    first = false;
    line = line.then(async () => {
      if (!card.isConnected) return;
      await ask(said.inspect, new FormData(), place, said.reading);
      if (takesFocus) (card.querySelector("input[name=sex]") ?? card.querySelector("h2")).focus();
    });
  }
}

async function assess(form) {
  const card = cardOf(form);
  const place = card.querySelector(".answer");
  place.replaceChildren();
  if (!(await ask(said.assess, new FormData(form), place, said.assessing))) return;
  card.querySelector(".ask").hidden = true;
  show(card);
  card.querySelector("h2").focus();
  const told = { "{name}": nameOf(card), "{age}": card.querySelector(".big").textContent };
  announce(said.done.replace(/\{name\}|\{age\}/g, (key) => told[key]));
}

// The heat map that is chosen, as strong as the slider says.
function show(card) {
  const opacity = card.querySelector("[data-do=opacity]");
  const chosen = card.querySelector("[data-do=direction]:checked");
  opacity.nextElementSibling.textContent = `${opacity.value} %`;
  card.querySelector(".film").alt = chosen.dataset.alt;
  for (const map of card.querySelectorAll(".heat")) {
    map.hidden = map.dataset.direction !== chosen.value;
    map.style.opacity = opacity.value / 100;
  }
}

function remove(card) {
  const item = card.closest("li");
  const next = item.nextElementSibling ?? item.previousElementSibling;
  item.remove();
  (next?.querySelector("h2") ?? picker).focus();
  document.body.classList.toggle("started", cases.children.length > 0);
}

function edit(card) {
  card.querySelector(".answer").replaceChildren();
  card.querySelector(".ask").hidden = false;
  card.querySelector("input[name=sex]:checked").focus();
}

cases.addEventListener("submit", (event) => {
  event.preventDefault();
  assess(event.target);
});
cases.addEventListener("input", (event) => {
  if (event.target.dataset.do) show(cardOf(event.target));
});
cases.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  const actions = {
    remove, edit, print: () => window.print(),
    download: (card) => { button.download = `${nameOf(card).replace(/\.[^.]*$/, "")}.bone-age.json`; },
  };
  if (button) actions[button.dataset.do]?.(cardOf(button));
});

picker.addEventListener("change", () => { add(picker.files); picker.value = ""; });
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  add(event.dataTransfer.files);
});

// Paper holds everything: what is folded away on the screen is opened for printing, and folded again after it.
let unfolded = [];
window.addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const details of unfolded) details.open = true;
});
window.addEventListener("afterprint", () => { for (const details of unfolded) details.open = false; });

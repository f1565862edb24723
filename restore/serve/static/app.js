// The page: pictures, the options of the tasks, the queue.
import { beginJob, cancelJob, follow, getBlob, getJSON, preview } from "./api.js";
import { Mask } from "./mask.js";
import { TEXTS } from "./texts.js";
import { Viewer } from "./viewer.js";

const AT_ONCE = 4; // jobs of this page that the server has
const PAUSE = 350; // ms after which a changed option is tried on the picture that is shown

const $ = (id) => document.getElementById(id);
for (const one of document.querySelectorAll("[data-text]")) one.textContent = TEXTS[one.dataset.text];
for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", TEXTS[one.dataset.label]);

const viewer = new Viewer($("stage"), { divider: $("divider"), zoom: $("zoom"), brushSize: $("brush-size") });
const items = [];
let shown = null;
let about = { tasks: [], formats: [], reads: [] };
let running = 0;
let retry = null;

const say = (text) => ($("said").textContent = text);
const make = (name, more = {}, ...children) => {
  const made = Object.assign(document.createElement(name), more);
  made.append(...children);
  return made;
};
const task = () => about.tasks.find((one) => one.name === $("task").value);

// ---- options -------------------------------------------------------------------------------------------------------

function field(label, input, help, output) {
  if (help) input.title = help;
  const name = make("span", { textContent: label });
  if (input.type === "checkbox") return make("label", { className: "field inline" }, input, name);
  const body = output ? make("span", { className: "split" }, input, output) : input;
  return make("label", { className: "field" }, name, body);
}

function control(option) {
  const label = TEXTS.optionLabels[option.name] ?? option.name.replaceAll("_", " ");
  const about = { name: option.name };
  if (option.choices) {
    const text = TEXTS.choice[option.name] ?? String;
    const choices = option.choices.map((value) => new Option(text(value), value, value === option.default, value === option.default));
    return field(label, make("select", about, ...choices), option.help);
  }
  if (option.type === "bool") return field(label, make("input", { ...about, type: "checkbox", checked: option.default }), option.help);
  if (option.type === "str") return field(label, make("input", { ...about, type: "text", value: option.default ?? "" }), option.help);
  const bounds = { min: option.min ?? "", max: option.max ?? "", step: option.type === "int" ? 1 : "any" };
  if (option.type === "float" && option.max !== undefined && !option.optional) {
    return slider(option.name, label, option.help, option.min ?? 0, option.max, option.default);
  }
  const number = make("input", { ...about, ...bounds, type: "number", value: option.default ?? "" });
  if (option.optional) number.placeholder = TEXTS.automatic;
  return field(label, number, option.help);
}

function slider(name, label, help, min, max, value) {
  const input = make("input", { type: "range", name, min, max, step: 0.01 });
  input.value = value;
  const output = make("output");
  const tell = () => (output.textContent = Number(input.value).toFixed(2));
  input.addEventListener("input", tell);
  tell();
  return field(label, input, help, output);
}

function makeOptions() {
  const { help, options, max_strength } = task();
  $("task-help").textContent = worded(help);
  const formats = ["png", "jpg", "webp", "tif", "avif"].filter((one) => about.formats.includes(one));
  const format = make("select", { name: "ext" }, new Option(TEXTS.sameFormat, ""), ...formats.map((one) => new Option(one, one)));
  const quality = make("input", { name: "quality", type: "number", min: 1, max: 100, placeholder: TEXTS.sameQuality });
  const switches = ["strip_metadata", "salvage"].map((name) => control({ name, type: "bool", default: false }));
  $("options").replaceChildren(
    ...(max_strength ? [slider("strength", TEXTS.strength, TEXTS.strengthHelp, 0, max_strength, 1)] : []),
    ...options.map(control),
    field(TEXTS.format, format),
    field(TEXTS.quality, quality),
    ...switches,
  );
}

// What differs from the defaults, for the query.
function chosen() {
  const found = {};
  const defaults = Object.fromEntries(task().options.map((one) => [one.name, one.default]));
  for (const input of $("options").elements) {
    if (!input.name) continue; // an output
    const value = input.type === "checkbox" ? input.checked : input.value;
    const plain = input.name === "strength" ? "1" : String(defaults[input.name] ?? (input.type === "checkbox" ? false : ""));
    if (String(value) !== plain && value !== "") found[input.name] = value;
  }
  return found;
}

const asked = () => JSON.stringify([task().name, chosen()]);
const askedWithoutStrength = () => JSON.stringify([task().name, { ...chosen(), strength: undefined }]);

// ---- pictures ------------------------------------------------------------------------------------------------------

function add(files) {
  for (const file of files) {
    const path = file.path ?? file.webkitRelativePath ?? "";
    const folder = path.slice(0, Math.max(0, path.lastIndexOf("/")));
    const item = { file, folder, name: file.name, stage: "new", share: 0, before: URL.createObjectURL(file) };
    item.row = row(item);
    items.push(item);
    $("items").append(item.row.li);
    update(item);
  }
  if (!shown && items.length) show(items[0]);
  refresh();
}

function row(item) {
  const name = make("button", { type: "button", className: "name", textContent: item.name, onclick: () => show(item) });
  name.setAttribute("aria-label", TEXTS.showOf(item.name));
  const state = make("span", { className: "state" });
  const steps = make("dl");
  const bar = make("progress", { max: 1, value: 0 });
  bar.setAttribute("aria-label", TEXTS.progressOf(item.name));
  const cancel = make("button", { type: "button", textContent: TEXTS.cancel, onclick: () => stop(item) });
  cancel.setAttribute("aria-label", TEXTS.cancelOf(item.name));
  const remove = make("button", { type: "button", textContent: TEXTS.remove, onclick: () => drop(item) });
  remove.setAttribute("aria-label", TEXTS.removeOf(item.name));
  const download = make("a", { className: "button", textContent: TEXTS.download });
  download.setAttribute("aria-label", TEXTS.downloadOf(item.name));
  const li = make("li", {}, name, state, steps, bar, make("div", { className: "row" }, download, cancel, remove));
  return { li, state, steps, bar, cancel, remove, download };
}

const busy = (item) => ["sending", "queued", "decoding", "computing", "encoding"].includes(item.stage) || item.waiting;

// What the server says to people at a command line, in the words of the page.
const worded = (text) =>
  text
    .replace(/, with --[^;]*/g, "") // advice on files of masks
    .replace(/ \(-m [^)]*\)/g, "") // and on weights
    .replace(/--([a-z]+)/g, (flag, name) => (name in TEXTS.optionLabels ? `“${TEXTS.optionLabels[name]}”` : flag));

function update(item) {
  const { li, state, steps, bar, cancel, remove, download } = item.row;
  const { result } = item;
  const decided = (item.stage === "done" && result.steps) || [];
  const notes = [item.waiting ? TEXTS.stages.queued : (TEXTS.stages[item.stage] ?? item.stage)];
  if (item.error && item.stage === "failed") notes.push(worded(item.error));
  if (item.stage === "done") {
    const chain = decided.map((one) => `${one.task}: ${one.note}`).join("; ");
    const rest = result.message.replace(chain, "").replace(/([,;] |^)copied$/, "").replace(/^; /, "");
    if (rest) notes.push(worded(rest));
    if (result.result === "copied") notes.push(TEXTS.copied);
    if (item.asked !== asked()) notes.push(TEXTS.stale);
  }
  state.textContent = notes.join("; ");
  steps.replaceChildren(
    ...decided.flatMap((one) => [make("dt", { textContent: one.task }), make("dd", { textContent: worded(one.note) })]),
  );
  li.className = item.stage;
  li.toggleAttribute("aria-current", false);
  if (item === shown) li.setAttribute("aria-current", "true");
  bar.hidden = !busy(item);
  if (item.stage === "computing") bar.value = item.share;
  else bar.removeAttribute("value");
  cancel.hidden = !busy(item);
  remove.hidden = busy(item);
  download.hidden = item.stage !== "done";
  if (item.stage === "done") {
    download.href = `${result.url}/result`;
    download.download = result.file;
  }
}

function refresh() {
  $("empty").hidden = items.length > 0;
  const ready = items.filter((one) => one.stage === "done");
  $("archive").hidden = ready.length < 2;
  const parts = ready.flatMap((one) => [["id", one.result.id], ["folder", one.folder]]);
  $("archive").href = `/api/v1/archive?${new URLSearchParams(parts)}`;
  $("run").disabled = !items.length;
  items.forEach(update);
}

async function show(item) {
  if (shown && shown !== item && items.includes(shown) && viewer.mask.edited) shown.mask = viewer.mask.save();
  shown = item;
  items.forEach(update);
  showMaskTools();
  if (!item) {
    viewer.show(null, null);
    return;
  }
  const after = item.after ?? null;
  try {
    await viewer.show(item.before, after);
  } catch {
    await showPreview(item, after);
  }
  if (shown !== item) return;
  viewer.blend(1);
  if (item.mask) {
    viewer.mask.load(item.mask);
    item.mask = null;
  }
  if (item.found && !viewer.mask.edited) await viewer.mask.take(item.found, false);
}

// Formats that browsers do not show come from the server as PNG.
async function showPreview(item, after) {
  try {
    item.before = URL.createObjectURL(await preview(item.file));
    if (shown === item) await viewer.show(item.before, after);
  } catch (error) {
    if (shown === item) say(error.message || TEXTS.noPicture);
  }
}

async function stop(item) {
  item.waiting = false;
  item.wanted = false;
  if (item.job) await cancelJob(item.job);
  else item.stage = "cancelled";
  update(item);
}

function drop(item) {
  if (item.result) cancelJob(item.result); // forgets it
  URL.revokeObjectURL(item.before);
  const at = items.indexOf(item);
  items.splice(at, 1);
  item.row.li.remove();
  if (shown === item) show(items[Math.min(at, items.length - 1)] ?? null);
  refresh();
}

// ---- the queue -----------------------------------------------------------------------------------------------------

function queue(list) {
  for (const item of list) {
    if (!item.waiting) Object.assign(item, { waiting: true, error: null });
  }
  items.forEach(update);
  pump();
}

function pump() {
  while (running < AT_ONCE) {
    const next = (shown?.waiting && !shown.running && shown) || items.find((one) => one.waiting && !one.running);
    if (!next) return;
    running += 1;
    next.waiting = false;
    next.running = true;
    run(next).finally(() => {
      running -= 1;
      next.running = false;
      refresh();
      pump();
    });
  }
}

async function run(item) {
  const options = chosen();
  const [name, key, full] = [task().name, asked(), askedWithoutStrength()];
  Object.assign(item, { stage: "sending", share: 0, error: null, wanted: true, job: null });
  update(item);
  try {
    const given = await givenFor(item);
    const job = await beginJob(name, item.file, given, options, () => item.wanted);
    item.job = job;
    if (!item.wanted) await cancelJob(job);
    const last = await follow(job, (state) => {
      Object.assign(item, { stage: state.stage === "done" ? "encoding" : state.stage, share: state.share });
      update(item);
    });
    if (last.stage === "done") {
      if (item.result) cancelJob(item.result); // its result is replaced
      await take(item, last, key, full, options.strength);
    } else Object.assign(item, { stage: last.stage, error: last.error });
  } catch (error) {
    Object.assign(item, item.wanted ? { stage: "failed", error: error.message } : { stage: "cancelled" });
  }
  item.job = null;
  say(TEXTS.ended(item.name, TEXTS.stages[item.stage]));
}

async function take(item, last, key, full, strength) {
  let after = await getBlob(`${last.url}/result`);
  try {
    (await createImageBitmap(after)).close();
  } catch {
    after = await preview(after);
  }
  if (item.after && item.after !== item.full?.url) URL.revokeObjectURL(item.after);
  const url = URL.createObjectURL(after);
  if (strength === undefined) item.full = { url, asked: full };
  const found = last.mask && painted() === "mask" && !edited(item) ? await getBlob(`${last.url}/mask`) : null;
  Object.assign(item, { result: last, asked: key, after: url, stage: "done", share: 1 });
  item.found = found;
  if (shown === item) await show(item);
}

// ---- masks ---------------------------------------------------------------------------------------------------------

const edited = (item) => (shown === item ? viewer.mask.edited : item.mask?.edited);

// What is painted over the pictures of a task: a mask, hints or nothing.
const painted = () => (task()?.masks ? "mask" : task()?.hints ? "hints" : "");

async function givenFor(item) {
  const part = painted();
  if (!part || !edited(item)) return null;
  const saved = shown === item ? viewer.mask.save() : item.mask;
  if (part === "hints" && !Mask.marks(saved)) return null; // all dabs were taken away again
  return { part, blob: await Mask.blob(saved, part === "hints") };
}

// A mask says nothing to a task that takes hints, nor the other way round.
function forgetPainted() {
  for (const item of items) Object.assign(item, { mask: null, found: null });
  viewer.mask.resize(viewer.mask.canvas.width, viewer.mask.canvas.height);
}

function showMaskTools() {
  const wanted = painted();
  if ($("mask-tools").dataset.part !== wanted) forgetPainted();
  $("mask-tools").dataset.part = wanted;
  $("mask-tools").hidden = !wanted;
  const hints = wanted === "hints";
  viewer.mask.hints = hints ? $("colour").value : null;
  $("colour-field").hidden = !hints;
  $("forget").hidden = hints;
  const { mask, maskHelp, loadMask, hints: colours, hintsHelp, loadHints } = TEXTS;
  const texts = hints ? [colours, hintsHelp, loadHints] : [mask, maskHelp, loadMask];
  for (const [at, id] of ["mask-title", "mask-help", "mask-load"].entries()) $(id).textContent = texts[at];
  viewer.mask.hidden = !wanted || !$("mask-show").checked;
  viewer.tool = wanted ? document.querySelector("[name=tool]:checked").value : "move";
  $("stage").classList.toggle("paints", viewer.tool !== "move" && !viewer.mask.hidden);
  viewer.draw();
}

// ---- what people do ------------------------------------------------------------------------------------------------

function live() {
  clearTimeout(retry);
  refresh();
  if (!shown?.result) return;
  retry = setTimeout(() => {
    if (shown?.result && shown.asked !== asked()) queue([shown]);
  }, PAUSE);
}

function blendLive() {
  const strength = Number(new FormData($("options")).get("strength"));
  if (!shown?.full || shown.full.asked !== askedWithoutStrength() || strength > 1) return;
  if (viewer.afterImage.src !== shown.full.url) viewer.afterImage.src = shown.full.url;
  viewer.blend(strength);
}

async function filesOf(transfer) {
  const entries = [...transfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((give, fail) => entry.file(give, fail));
      found.push(Object.assign(file, { path: entry.fullPath.slice(1) }));
    } else {
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((give, fail) => reader.readEntries(give, fail));
        if (!batch.length) break;
        for (const one of batch) await walk(one);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

const pictures = (files) => [...files].filter((one) => about.reads.includes(one.name.split(".").pop().toLowerCase()));

async function takeSamples() {
  const samples = await getJSON("/api/v1/samples");
  const names = samples[task().name] ?? [];
  const files = await Promise.all(
    names.map(async (name) => new File([await getBlob(`/api/v1/samples/${task().name}/${name}`)], name, { type: "image/png" })),
  );
  add(files);
}

for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => {
    add(id === "folder" ? pictures($(id).files) : [...$(id).files]);
    $(id).value = "";
  });
}
$("samples").addEventListener("click", () => takeSamples().catch((error) => say(error.message)));
$("task").addEventListener("change", () => {
  makeOptions();
  showMaskTools();
  refresh();
});
$("options").addEventListener("input", (event) => (event.target.name === "strength" ? blendLive() : live()));
$("options").addEventListener("change", live);
$("options").addEventListener("submit", (event) => event.preventDefault());
$("run").addEventListener("click", () => {
  const list = items.filter((one) => !busy(one) && (one.stage !== "done" || one.asked !== asked() || one === shown && viewer.mask.edited));
  queue(list);
});
$("zoom-in").addEventListener("click", () => viewer.zoom(1.25));
$("zoom-out").addEventListener("click", () => viewer.zoom(0.8));
$("fit").addEventListener("click", () => viewer.fit());
$("actual").addEventListener("click", () => viewer.actual());
$("undo").addEventListener("click", () => viewer.mask.undo());
$("clear").addEventListener("click", () => viewer.mask.clear());
$("forget").addEventListener("click", () => {
  viewer.mask.resize(viewer.mask.canvas.width, viewer.mask.canvas.height);
  if (shown) queue([shown]);
});
$("mask-file").addEventListener("change", async () => {
  const [file] = $("mask-file").files;
  if (file) await viewer.mask.take(file, true).catch(() => say(TEXTS.noPicture));
  $("mask-file").value = "";
});
$("mask-buttons").addEventListener("change", showMaskTools);
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  add(pictures(await filesOf(event.dataTransfer)));
});

async function start() {
  about = await getJSON("/api/v1/tasks");
  $("device").textContent = `${TEXTS.intro} (${about.device})`;
  $("task").replaceChildren(...about.tasks.map((one) => new Option(one.name, one.name)));
  makeOptions();
  showMaskTools();
  refresh();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => say(error.message));

// Sends one clip at a time, receives a prediction per window, and shows them next to the video.
import { at, csv, events, plain } from "/answers.js";
import { face, sound, timeline } from "/draw.js";
import { live } from "/live.js";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
let answers = [], seconds = 0, name = "", request = null, stopLive = null, clock = null, map = null, shown = null;

function say(text, alarm = false) {
  $("status").textContent = text;
  $("status").classList.toggle("alarm", alarm);
}

function progress(value) {
  $("progress").hidden = value === null;
  if (value === undefined) $("progress").removeAttribute("value");
  else if (value !== null) $("progress").value = value;
}

function asked() {
  const fields = { details: true, person: Number($("person").value), min_confidence: Math.min(Math.max(Number($("least").value) / 100, 0), 1) };
  return fields;
}

function begin(title) {
  request?.abort();
  stopLive?.();
  request = stopLive = clock = shown = null;
  [answers, seconds, name] = [[], 0, title];
  const video = $("video");
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  $("result").hidden = $("unplayable").hidden = true;
  progress(null);
}

function send(file) {
  begin(file.name);
  $("video").src = URL.createObjectURL(file);
  $("video").muted = false;
  const form = new FormData();
  form.append("file", file, "clip");
  for (const [key, value] of Object.entries(asked())) form.append(key, value);
  const own = (request = new XMLHttpRequest());
  let read = 0, windows = 0;
  own.open("POST", "/v1/predict/stream");
  if (model.token) own.setRequestHeader("Authorization", `Bearer ${$("token").value}`);
  own.upload.onprogress = (event) => { progress(event.loaded / event.total); say("Uploading the clip"); };
  own.upload.onload = () => { progress(undefined); say("Processing the clip"); };
  own.onprogress = () => {
    if (own.status !== 200 || own !== request) return;
    const part = events(own.responseText.slice(read));
    read += part.read;
    for (const event of part.found) {
      if (event.name === "begin") [seconds, windows] = [event.data.seconds, event.data.windows];
      if (event.name === "window") take(event.data);
      if (event.name === "problem") say(event.data.detail, true);
    }
    if (windows) { progress(answers.length / windows); say(`Window ${answers.length} of ${windows}`); }
  };
  own.onload = () => {
    own.onprogress();
    progress(null);
    if (own.status !== 200) { say(problem(own.responseText, own.status), true); return; }
    const missing = answers.filter((answer) => answer.error).length;
    if (answers.length < windows) return; // the status shows the problem already
    say(missing === answers.length ? answers[0].error : missing ? `${missing} of ${windows} windows have no prediction` : "Done", missing > 0);
  };
  own.onerror = () => { progress(null); say("The server cannot be reached", true); };
  own.send(form);
}

function problem(text, status) {
  try { return JSON.parse(text).detail; } catch { return `The server returned status ${status}`; }
}

function take(answer) {
  answers.push(answer);
  seconds = Math.max(seconds, answer.end);
  $("result").hidden = false;
  $("table").replaceChildren(...table());
  show();
}

function now() {
  return clock ?? ($("video").currentTime || 0);
}

function show() {
  if ($("result").hidden) return;
  // In a live session, the newest prediction is shown, although its window is over.
  const answer = clock === null ? at(answers, now()) : answers.at(-1);
  map = timeline($("timeline"), answers, model.classes, Math.max(seconds, clock ?? 0), now());
  const slider = $("timeline");
  slider.setAttribute("aria-valuemax", seconds.toFixed(1));
  slider.setAttribute("aria-valuenow", now().toFixed(1));
  slider.setAttribute("aria-valuetext", `${now().toFixed(1)} seconds: ${answer?.label ?? answer?.error ?? ""}`);
  face($("box"), $("video"), answer, clock === null ? now() : (answer?.end ?? 0));
  if (answer && answer !== shown) describe(answer);
}

function describe(answer) {
  shown = answer;
  $("label").textContent = answer.error ? "No prediction" : `${answer.label} ${Math.round(100 * answer.confidence)} %`;
  $("when").textContent = `${answer.start.toFixed(1)} to ${answer.end.toFixed(1)} s`;
  $("notes").textContent = answer.error ?? answer.notes ?? "";
  $("bars").replaceChildren(...(answer.error ? [] : model.classes.flatMap((one) => bar(one, answer))));
  $("weights").replaceChildren(...(answer.error ? [] : weights(answer)));
  const heard = answer.details?.sound;
  $("heard").hidden = !heard;
  $("heat").hidden = !heard?.attention;
  if (heard) sound($("sound"), heard);
}

function make(tag, text, kind = "") {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function bar(one, answer) {
  const p = answer.probabilities[one], best = p === answer.confidence ? "best" : "";
  const track = make("dd", null, "bar"), fill = make("i", null);
  fill.style.width = `${100 * p}%`;
  track.append(fill);
  return [make("dt", one, best), track, make("dd", `${Math.round(100 * p)} %`, `share ${best}`)];
}

function weights(answer) {
  const used = [["voice", answer.audio_ok, answer.voice_weight], ["face", answer.video_ok, answer.face_weight]].filter((one) => one[1]);
  return used.map(([kind, , weight]) => {
    const alone = used.length === 1;
    const made = make("span", alone ? `${kind} only` : weight === null ? kind : `${kind} ${Math.round(100 * weight)} %`, kind);
    made.style.flexGrow = alone || weight === null ? 1 : Math.max(weight, 0.001);
    return made;
  });
}

function table() {
  const head = make("tr", null), names = ["from", "to", "emotion", ...model.classes, "notes"];
  head.append(...names.map((one) => make("th", one)));
  return [head, ...answers.map((answer) => {
    const row = make("tr", null);
    const shares = model.classes.map((one) => answer.error ? "" : answer.probabilities[one].toFixed(2));
    const cells = [answer.start.toFixed(1), answer.end.toFixed(1), answer.label ?? "", ...shares, answer.error ?? answer.notes ?? ""];
    row.append(...cells.map((text) => make("td", text)));
    return row;
  })];
}

function seek(second) {
  if (clock !== null) return;
  $("video").currentTime = Math.min(Math.max(second, 0), seconds);
  show();
}

function save(text, suffix, type) {
  const link = make("a", null);
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = `${name.replace(/\.[^.]*$/, "") || "live"}${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function camera() {
  begin("live");
  try {
    clock = 0;
    say("Waiting for permission to use the webcam");
    const more = model.token ? { token: $("token").value } : {};
    stopLive = await live($("video"), { ...asked(), ...more }, {
      window: () => { say("Live: one prediction per window"); $("result").hidden = false; show(); },
      clock: (second) => { clock = second; show(); },
      answer: take,
      failed: (answer) => say(answer.detail, true),
      closed: () => { $("stop").hidden = true; $("camera").hidden = false; if (!$("status").classList.contains("alarm")) say("Stopped"); },
    });
    $("stop").hidden = false;
    $("camera").hidden = true;
  } catch (error) {
    clock = null;
    say(`Webcam not available: ${error.message}`, true);
  }
}

$("file").onchange = (event) => { if (event.target.files[0]) send(event.target.files[0]); event.target.value = ""; };
$("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
};
$("camera").onclick = camera;
$("stop").onclick = () => stopLive?.();
$("json").onclick = () => save(JSON.stringify({ clip: name, windows: plain(answers) }, null, 1), ".json", "application/json");
$("csv").onclick = () => save(csv(answers, model.classes), ".csv", "text/csv");
$("timeline").onclick = (event) => { if (map) seek((event.offsetX - map.first) / map.scale); };
$("timeline").onkeydown = (event) => {
  const moves = { ArrowRight: now() + 0.5, ArrowLeft: now() - 0.5, Home: 0, End: seconds, PageDown: now() - model.window, PageUp: now() + model.window };
  if (event.key in moves) { event.preventDefault(); seek(moves[event.key]); }
};
for (const event of ["timeupdate", "seeked", "loadedmetadata"]) $("video").addEventListener(event, show);
$("video").onloadedmetadata = () => document.querySelector(".stage").classList.toggle("sound", !$("video").videoWidth);
$("video").onerror = () => { if ($("video").getAttribute("src")) $("unplayable").hidden = false; };
const again = () => { shown = null; show(); };
window.addEventListener("resize", again);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

const $ = (id) => document.getElementById(id);
const SHOWN_SCORES = 4;
let photo = null;    // the Blob that is shown
let picture = null;  // the same as an ImageBitmap
let seen = null;     // what the server said of it
let tray = [];       // Blobs of the class that is being taught
let stream = null;   // of the camera
let asked = 0;       // requests for a picture; answers to earlier ones come too late

function say(text, wrong = false, where = "status") {
  $(where).textContent = text;
  $(where).classList.toggle("wrong", wrong);
}

async function ask(path, body) {
  if (body.size > about.mostUpload) throw new Error(`at most ${about.mostUpload / 2 ** 20} MiB are taken at a time`);
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "X-Token": about.token }, body });
  } catch {
    throw new Error("the server does not answer; does fer-fast demo still run?");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

const percent = (score) => `${(100 * score).toFixed(0)} %`;

function colour(name) {
  const place = about.classes.indexOf(name);
  return place < 0 ? about.unknown : about.palette[place % about.palette.length];
}

function inkOn(hex) {  // black or white, whichever is read on a colour
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return 0.3 * red + 0.59 * green + 0.11 * blue > 140 ? "#000" : "#fff";
}

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function drawPicture(source, width, height) {
  const canvas = $("canvas"), pen = canvas.getContext("2d");
  canvas.width = width;
  canvas.height = height;
  canvas.hidden = false;
  $("empty").hidden = true;
  pen.drawImage(source, 0, 0, width, height);
  const unit = Math.max(width, height) / 100;
  for (const [number, face] of (seen ? seen.faces : []).entries()) {
    const [left, top, w, h] = face.box, known = face.label === face.best;
    const text = `${numbered(number)}${face.label}${known ? ` ${percent(face.score)}` : ""}`;
    pen.strokeStyle = pen.fillStyle = colour(face.label);
    pen.lineWidth = unit / 2;
    pen.setLineDash(face.found ? [] : [2 * unit, unit]);
    pen.strokeRect(left, top, w, h);
    pen.font = `600 ${3 * unit}px system-ui, sans-serif`;
    const wide = pen.measureText(text).width + 1.6 * unit;
    const x = Math.max(0, Math.min(left, width - wide)), y = Math.max(0, top - 4 * unit);
    pen.fillRect(x, y, wide, 4 * unit);
    pen.fillStyle = inkOn(colour(face.label));
    pen.fillText(text, x + 0.8 * unit, y + 3 * unit);
  }
}

function showFaces() {
  $("faces").replaceChildren(...seen.faces.map(card));
}

function card(face, number) {
  const made = element("div", "", "face"), image = element("img"), side = element("div");
  image.src = $("heat").checked && face.activation ? face.activation : face.face;
  image.alt = `face ${number + 1}: ${face.label}`;
  side.append(element("b", numbered(number) + face.label), element("div", heading(face), "small"));
  for (const [name, score] of face.scores.slice(0, SHOWN_SCORES)) {
    const row = element("div", "", "score"), track = element("div", "", "track"), bar = element("i");
    bar.style.width = `${100 * score}%`;
    track.append(bar);
    row.append(element("span", name), track, element("span", percent(score)));
    side.append(row);
  }
  const add = element("button", "Add to the class below");
  add.type = "button";
  add.addEventListener("click", () => addFace(face));
  if (picture && about.teachable) side.append(add);
  made.append(image, side);
  return made;
}

const numbered = (number) => (seen.faces.length > 1 ? `${number + 1} ` : "");

function heading(face) {
  const parts = [];
  if (!face.found) parts.push("no face found; the middle of the picture");
  if (face.cosine !== null) parts.push(`cosine ${face.cosine.toFixed(2)} with ${face.best}`);
  return parts.join(" · ");
}

async function look(blob) {
  const mine = ++asked;
  say("Looking…");
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    // The browser cannot show it; the server says whether it can read it.
  }
  try {
    const answer = await ask("/predict?activation=1", blob);
    if (mine !== asked) return;
    [photo, picture, seen] = [blob, bitmap, answer];
    if (bitmap) drawPicture(bitmap, bitmap.width, bitmap.height);
    else $("canvas").hidden = true;
    showFaces();
    const found = answer.faces.filter((face) => face.found).length;
    say(found ? `${found} face${found > 1 ? "s" : ""} found` : "No face found: the middle of the picture was taken for one");
  } catch (error) {
    if (mine === asked) say(error.message, true);
  }
}

const asBlob = (canvas) => new Promise((done) => canvas.toBlob(done, "image/png"));

async function addFace(face) {
  const [left, top, width, height] = face.box, room = 0.3 * Math.max(width, height);
  const canvas = element("canvas");
  canvas.width = Math.round(width + 2 * room);
  canvas.height = Math.round(height + 2 * room);
  canvas.getContext("2d").drawImage(picture, room - left, room - top);
  addPhotos([await asBlob(canvas)]);
}

function addPhotos(blobs) {
  tray = [...tray, ...blobs].slice(0, about.mostPhotos);
  showTray();
}

function showTray() {
  $("tray").replaceChildren(...tray.map((blob, number) => {
    const made = element("figure"), image = element("img"), away = element("button", "×");
    image.src = URL.createObjectURL(blob);
    image.alt = `photo ${number + 1} of the new class`;
    image.addEventListener("load", () => URL.revokeObjectURL(image.src));
    away.type = "button";
    away.setAttribute("aria-label", `leave photo ${number + 1} out`);
    away.addEventListener("click", () => { tray.splice(number, 1); showTray(); });
    made.append(image, away);
    return made;
  }));
  $("teach").disabled = !tray.length;
  $("teach").textContent = tray.length ? `Enrol ${tray.length} photo${tray.length > 1 ? "s" : ""}` : "Enrol";
}

function showClasses() {
  const limit = about.threshold === null ? "" : `; below a cosine of ${about.threshold} a face is unknown`;
  $("knows").textContent = `It knows ${about.classes.join(", ")}${limit}.`;
  $("kept").textContent = about.kept ? `Written to ${about.kept}.` : "Kept until the server ends (--out keeps it).";
  $("undo").hidden = !about.enrolled.length;
  $("undo").textContent = `Take back ${about.enrolled.at(-1)}`;
  $("enrol").hidden = !about.teachable;
  if (!about.teachable) $("teaching").textContent = "Not this one: classes are told by direction in lmcl, a-softmax and arcface.";
}

async function change(path, body, done) {
  say("Working…", false, "taught");
  try {
    Object.assign(about, await ask(path, body));
    showClasses();
    if (photo && !stream) await look(photo);
    say([done(), ...about.warnings].join(". "), false, "taught");
    return true;
  } catch (error) {
    say(error.message, true, "taught");
    return false;
  }
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
  } catch (error) {
    return say(`no camera: ${error.message}`, true);
  }
  $("video").srcObject = stream;
  $("video").hidden = $("snap").hidden = false;
  $("camera").textContent = "Stop the camera";
  await $("video").play();
  say("Camera on");
  while (stream) await frame();
}

function stopCamera() {
  for (const track of stream ? stream.getTracks() : []) track.stop();
  stream = null;
  $("video").hidden = $("snap").hidden = true;
  $("camera").textContent = "Use the camera";
}

function grab() {
  const video = $("video"), canvas = element("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas;
}

async function frame() {
  const mine = ++asked, still = grab();
  const answer = still.width
    ? await ask("/predict", await asBlob(still)).catch((error) => { stopCamera(); say(error.message, true); })
    : await new Promise((done) => setTimeout(done, 100));
  if (answer && stream && mine === asked) {
    [picture, seen] = [still, answer];
    drawPicture(still, still.width, still.height);
    showFaces();
  }
}

$("photo").addEventListener("change", (event) => {
  stopCamera();
  if (event.target.files.length) look(event.target.files[0]);
  event.target.value = "";
});
$("photos").addEventListener("change", (event) => {
  addPhotos([...event.target.files]);
  event.target.value = "";
});
$("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
$("snap").addEventListener("click", async () => {
  const still = grab();
  stopCamera();
  look(await asBlob(still));
});
$("heat").addEventListener("change", () => seen && showFaces());
$("enrol").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  const lengths = tray.map((blob) => blob.size).join(",");
  const query = new URLSearchParams({ name, lengths });
  if (await change(`/enrol?${query}`, new Blob(tray), () => `${name} enrolled`)) {
    tray = [];
    $("name").value = "";
    showTray();
  }
});
$("undo").addEventListener("click", () => {
  const last = about.enrolled.at(-1);
  change(`/undo?${new URLSearchParams({ name: last })}`, new Blob([]), () => `${last} taken back`);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    const files = [...event.dataTransfer.files];
    if (files.length > 1 || event.target.closest("section")?.contains($("tray"))) addPhotos(files);
    else { stopCamera(); look(files[0]); }
  });
}
showClasses();

// Draws on canvases, in the colours of the page.

const ROW = 26, GAP = 4, AXIS = 22;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function sized(canvas, height) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
  if (height) canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round((height || canvas.clientHeight) * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height: height || canvas.clientHeight };
}

function left(context, classes) {
  context.font = "14px system-ui, sans-serif";
  return Math.ceil(Math.max(...classes.map((name) => context.measureText(name).width))) + 10;
}

// Draws one row per class, with a bar per window as high as the probability; the top class is opaque.
export function timeline(canvas, answers, classes, seconds, now) {
  const { context, width, height } = sized(canvas, classes.length * (ROW + GAP) + AXIS);
  const first = left(context, classes), scale = (width - first - 8) / Math.max(seconds, 1e-6);
  context.textBaseline = "middle";
  classes.forEach((name, row) => {
    const top = row * (ROW + GAP);
    context.fillStyle = colour("ink");
    context.fillText(name, 0, top + ROW / 2);
    context.fillStyle = colour("soft");
    context.fillRect(first, top, seconds * scale, ROW);
  });
  answers.forEach((answer, index) => {
    const x = first + answer.start * scale;
    const end = index + 1 < answers.length ? Math.min(answer.end, answers[index + 1].start) : answer.end;
    const wide = Math.max((end - answer.start) * scale - 1, 1);
    classes.forEach((name, row) => {
      const top = row * (ROW + GAP);
      if (answer.error) {
        context.fillStyle = colour("line");
        context.fillRect(x, top, wide, ROW);
        return;
      }
      const high = answer.probabilities[name] * ROW;
      context.globalAlpha = answer.probabilities[name] === answer.confidence ? 1 : 0.45;
      context.fillStyle = colour("both");
      context.fillRect(x, top + ROW - high, wide, high);
      context.globalAlpha = 1;
    });
  });
  ticks(context, seconds, first, scale, height);
  context.fillStyle = colour("alarm");
  context.fillRect(first + now * scale - 1, 0, 2, height - AXIS);
  return { first, scale };
}

function ticks(context, seconds, first, scale, height) {
  const wanted = seconds / Math.max(Math.floor((seconds * scale) / 70), 1);
  const step = [0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((one) => one >= wanted) ?? 1800;
  context.fillStyle = colour("muted");
  context.font = "12px system-ui, sans-serif";
  for (let tick = 0; tick <= seconds + 1e-6; tick += step) {
    const text = seconds < 120 ? `${+tick.toFixed(1)} s` : `${Math.floor(tick / 60)}:${String(tick % 60).padStart(2, "0")}`;
    const x = first + tick * scale, wide = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(x - wide / 2, first), first + seconds * scale - wide), height - AXIS / 2 + 2);
  }
}

// Draws the spectrogram, low frequencies at the bottom, coloured where attention is above uniform.
export function sound(canvas, details) {
  const { context, width, height } = sized(canvas, 0);
  const [columns, rows] = details.shape, levels = atob(details.levels);
  const picture = new ImageData(columns, rows), dark = matchMedia("(prefers-color-scheme: dark)").matches;
  for (let t = 0; t < columns; t++)
    for (let f = 0; f < rows; f++) {
      const level = levels.charCodeAt(t * rows + f), at = 4 * ((rows - 1 - f) * columns + t);
      picture.data.fill(dark ? level : 255 - level, at, at + 3);
      picture.data[at + 3] = 255;
    }
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(picture, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, width, height);
  if (details.attention) heat(context, details.attention, width, height);
}

function heat(context, attention, width, height) {
  const most = Math.max(...attention.flat()) - 1, bands = attention[0].length;
  context.fillStyle = colour("voice");
  attention.forEach((row, t) => row.forEach((value, band) => {
    if (value <= 1) return;
    context.globalAlpha = 0.62 * Math.sqrt((value - 1) / Math.max(most, 1));
    context.fillRect((t * width) / attention.length, height - ((band + 1) * height) / bands,
      width / attention.length + 0.5, height / bands);
  }));
  context.globalAlpha = 1;
}

// Draws the box of the face nearest in time, with the predicted label.
export function face(canvas, video, answer, second) {
  const { context, width, height } = sized(canvas, 0);
  const faces = answer?.details?.faces;
  if (!faces?.length || !video.videoWidth) return;
  const near = faces.reduce((a, b) => Math.abs(b.time + answer.start - second) < Math.abs(a.time + answer.start - second) ? b : a);
  const scale = Math.min(width / video.videoWidth, height / video.videoHeight);
  const x = (width - scale * video.videoWidth) / 2, y = (height - scale * video.videoHeight) / 2;
  const [x0, y0, x1, y1] = near.box.map((value) => value * scale);
  context.lineWidth = 2 + 2 * Math.min(near.attention ?? 1, 2);
  context.strokeStyle = "#2fc59b";
  context.strokeRect(x + x0, y + y0, x1 - x0, y1 - y0);
  const text = `${answer.label} ${Math.round(100 * answer.confidence)} %`;
  context.font = "600 15px system-ui, sans-serif";
  const wide = context.measureText(text).width + 12, top = Math.max(y + y0 - 24, 0);
  context.fillStyle = "#00573f";
  context.fillRect(x + x0, top, wide, 22);
  context.fillStyle = "#ffffff";
  context.textBaseline = "middle";
  context.fillText(text, x + x0 + 6, top + 11);
}

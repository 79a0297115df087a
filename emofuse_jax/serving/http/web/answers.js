// Predictions of the windows: selects the one to show and converts them to CSV.

export function at(answers, second) {
  // The last window that started at or before `second`; of two overlapping windows, the newer one.
  let found = null;
  for (const answer of answers) if (answer.start <= second + 1e-6) found = answer;
  return found ?? answers[0] ?? null;
}

export function plain(answers) {
  return answers.map(({ details, ...rest }) => rest);
}

export function csv(answers, classes) {
  const names = ["start", "end", "label", "confidence", ...classes.map((name) => `p_${name}`),
    "voice_weight", "face_weight", "audio_ok", "video_ok", "notes", "error"];
  const rows = plain(answers).map((answer) => {
    const { probabilities = {}, ...rest } = answer;
    for (const name of classes) rest[`p_${name}`] = probabilities[name];
    return names.map((name) => cell(rest[name]));
  });
  return [names.map(cell), ...rows].map((row) => row.join(",") + "\r\n").join("");
}

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function events(text) {
  // Returns the complete server-sent events in `text`, and the number of characters that they take.
  const found = [];
  let from = 0;
  for (let end; (end = text.indexOf("\n\n", from)) >= 0; from = end + 2) {
    const [event, data] = text.slice(from, end).split("\n");
    found.push({ name: event.slice("event: ".length), data: JSON.parse(data.slice("data: ".length)) });
  }
  return { found, read: from };
}

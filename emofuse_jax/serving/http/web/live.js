// Sends webcam and microphone to WS /v1/live (protocol: emofuse_jax/serving/http/live_protocol.py).

const RATE = 16000, PICTURES = 10, CHUNK = 1600, SOUND = 1, PICTURE = 2;

function message(kind, second, bytes) {
  const whole = new Uint8Array(9 + bytes.byteLength), view = new DataView(whole.buffer);
  view.setUint8(0, kind);
  view.setFloat64(1, second, true);
  whole.set(new Uint8Array(bytes), 9);
  return whole;
}

// `told` has the callbacks `window`, `clock`, `answer`, `failed` and `closed`. Returns a function that stops the session.
export async function live(video, asked, told) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1 }, video: { width: { ideal: 640 }, facingMode: "user" } });
  const context = new AudioContext({ sampleRate: RATE });
  await context.audioWorklet.addModule("/sound.js");
  video.srcObject = stream;
  video.muted = true;
  await video.play();
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/live`);
  socket.binaryType = "arraybuffer";
  let timer = 0, stopped = false;

  function stop() {
    if (stopped) return;
    stopped = true;
    clearInterval(timer);
    for (const track of stream.getTracks()) track.stop();
    context.close();
    if (socket.readyState === WebSocket.OPEN) socket.send("end");
  }
  socket.onopen = () => socket.send(JSON.stringify(asked));
  socket.onclose = () => { stop(); told.closed(); };
  socket.onmessage = (event) => {
    const answer = JSON.parse(event.data);
    if (answer.status) told.failed(answer);
    else if (answer.window) { told.window(answer); begin(); }
    else told.answer(answer);
  };

  function begin() {
    const zero = performance.now(), source = context.createMediaStreamSource(stream);
    const heard = new AudioWorkletNode(context, "heard", { numberOfOutputs: 0 });
    let samples = [], sent = null;
    heard.port.onmessage = ({ data }) => {
      if (stopped) return;
      sent ??= (performance.now() - zero) / 1000 - data.length / RATE; // time of the first sample
      samples.push(...data);
      while (samples.length >= CHUNK) {
        const some = Int16Array.from(samples.splice(0, CHUNK), (x) => 32767 * Math.max(-1, Math.min(1, x)));
        socket.send(message(SOUND, sent, some.buffer));
        sent += CHUNK / RATE;
      }
    };
    source.connect(heard);
    const canvas = document.createElement("canvas");
    timer = setInterval(() => {
      const second = (performance.now() - zero) / 1000;
      told.clock(second);
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      if (!canvas.width) return;
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob(async (blob) => {
        if (blob && !stopped) socket.send(message(PICTURE, second, await blob.arrayBuffer()));
      }, "image/jpeg", 0.9);
    }, 1000 / PICTURES);
  }
  return stop;
}

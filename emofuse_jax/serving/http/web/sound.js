// Runs in the audio thread and passes the samples to the page.
registerProcessor("heard", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});

// In the audio thread: hands over what it hears.
registerProcessor("heard", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});

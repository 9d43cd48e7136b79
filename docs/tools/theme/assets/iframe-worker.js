// Browsers start no workers for pages that were opened as files, so the search would not answer.
// Here such a page runs the worker's script in a hidden frame. The script of the theme recognizes
// this by the name IFrameWorker.
"use strict";

class FrameWorker extends EventTarget {
  #frame = document.createElement("iframe");
  #loaded;

  constructor(url) {
    super();
    this.#frame.hidden = true;
    document.body.append(this.#frame);
    const inner = this.#frame.contentWindow;
    inner.document.open();
    inner.document.write("<!doctype html><body></body>");
    inner.document.close();
    // What a worker posts has no addressee: it goes to the page that started the worker
    inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
    const script = inner.document.createElement("script");
    this.#loaded = new Promise(resolve => { script.onload = resolve; });
    script.src = url;
    inner.document.body.append(script);
  }

  async postMessage(message) {
    await this.#loaded;
    const event = new MessageEvent("message", { data: structuredClone(message) });
    this.#frame.contentWindow.dispatchEvent(event);
  }

  terminate() {
    this.#frame.remove();
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = FrameWorker;
}

// The one WebSocket: JSON of events, numbered, and binary waves. It comes back by itself; each time it gets a snapshot.

const FIRST_MS = 300, MOST_MS = 5000, SILENT_MS = 6000;

export class Link extends EventTarget {
  constructor() {
    super();
    this.state = "connecting";
    this.reason = "";
    this.received = { messages: 0, bytes: 0 };
    this._wait = FIRST_MS;
    this._number = 0;
    this._asked = new Map();
    this._open();
    setInterval(() => this._look(), 1000);
  }

  /** Sends a request that nobody answers. */
  send(message) {
    if (this._socket?.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(message));
  }

  /** Sends a request; resolves with {ok, text}. */
  ask(message) {
    const id = String(++this._number);
    return new Promise((resolve) => {
      if (this._socket?.readyState !== WebSocket.OPEN) { resolve({ ok: false, text: "not connected" }); return; }
      this._asked.set(id, resolve);
      setTimeout(() => this._answer({ id, ok: false, text: "no answer within 5 s" }), 5000);
      this.send({ ...message, id });
    });
  }

  _open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this._socket = socket;
    this._seq = 0;
    this._heard = performance.now();
    socket.onmessage = ({ data }) => {
      this._heard = performance.now();
      this.received.messages += 1;
      this.received.bytes += data.byteLength ?? data.length;
      if (typeof data === "string") this._text(data);
      else this.dispatchEvent(Object.assign(new Event("waves"), { data }));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this._socket) return;
      this._is("away", reason || (code === 1006 ? "the server is not there" : `closed (${code})`));
      for (const id of [...this._asked.keys()]) this._answer({ id, ok: false, text: "the connection was lost" });
      setTimeout(() => this._open(), this._wait * (0.75 + Math.random() / 2));
      this._wait = Math.min(MOST_MS, this._wait * 1.7);
    };
  }

  _text(data) {
    const message = JSON.parse(data);
    this._seq += 1;
    if (message.seq !== this._seq) { this._again(`message ${this._seq} is missing`); return; }
    for (const item of message.items) {
      if (item.k === "snapshot") { this._wait = FIRST_MS; this._is("live", ""); }
      if (item.k === "reply") this._answer(item);
      this.dispatchEvent(Object.assign(new Event("item"), { item }));
    }
  }

  _answer({ id, ok, text }) {
    this._asked.get(id)?.({ ok, text });
    this._asked.delete(id);
  }

  _look() {
    if (this._socket.readyState === WebSocket.OPEN && performance.now() - this._heard > SILENT_MS) this._again("nothing came for 6 s");
  }

  _again(why) {
    const socket = this._socket;
    this._is("away", why);
    this._socket = null;
    socket.onclose = socket.onmessage = null;
    socket.close();
    this._open();
  }

  _is(state, reason) {
    this.state = state;
    this.reason = reason;
    this.dispatchEvent(new Event("state"));
  }
}

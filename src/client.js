// An EventSource that does not give up, and that the tabs of a user can share. It takes the place of EventSource:
//
//   import { SharedEventSource as EventSource } from '/client.js';
//   const news = new EventSource('/events/news', { share: 'everyone' });
//   news.onmessage = (event) => show(event.data);
//   news.ongap = (event) => warn(JSON.parse(event.data).lost); // Events that the server could not bring back.
//
// What it does beyond EventSource:
// - Tabs with the same `share` key and the same URL use one connection (browsers allow six to a host over HTTP/1.1).
//   One tab leads: it reads the stream and passes each event on. Every other tab first reads the stream itself, and
//   follows the leading tab once it has all events that the leading tab has. When the leading tab closes, another tab
//   resumes from its own last event id. So events need ids, which a hub gives to all of them.
// - Without a `share` key each tab has its own connection. The key names for whom the page reads, such as a user's id,
//   because a leading tab passes on what its own cookie was allowed to read. When the login changes, close the
//   source and make one with the new key. 'everyone' is a key for what every visitor may read.
// - A connection that is silent for longer than three heartbeats is replaced. A phone that wakes up checks at once.
// - Reconnection backs off exponentially, with jitter, and waits as long as Retry-After says.
// - Where a proxy holds back a stream, or the browser cannot read one, it uses long-poll.
// - Status 204 and refusals such as 403 stop it. EventSource stops at other statuses too, such as 503.
//
// It reads the stream with `fetch`: an EventSource shows a page neither comments, which heartbeats are, nor a status.

const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];
const LONGEST_PAUSE = 20_000;       // ms between two attempts, however many have failed.
const POLLS_FOR = 10 * 60_000;      // ms until a stream that was mute gets another chance.
const TRY_AGAIN = [408, 425, 429];  // Of the answers that say no, those that may not mean it.

export class SharedEventSource extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSED = CLOSED;
  CONNECTING = CONNECTING;
  OPEN = OPEN;
  CLOSED = CLOSED;
  onopen = null;
  onmessage = null;
  onerror = null;
  ongap = null;

  #options;
  #state = CONNECTING;
  #last = '';           // The last event id: whoever reads, this tab has everything up to here.
  #heard = Date.now();  // When something last came, be it a heartbeat.
  #own = null;          // Ends this tab's own connection. None while it is told by another tab.
  #unheard = false;     // A stream was asked for, and nothing has come of it yet.
  #failures = 0;
  #retry = 1_000;       // The reconnection time in ms, which the server may set.
  #pollsUntil = 0;
  #channel = null;      // To and from the other tabs.
  #leads = false;
  #release = () => {};  // Lets another tab lead.
  #closed = new AbortController();

  /**
   * `withCredentials` means what it means to EventSource. `share` is the key under which tabs share a connection.
   * `poll: true` uses long-poll from the beginning. After `mute` ms without a first byte the source polls; after
   * `silence` ms (three heartbeats) without a byte it reconnects.
   */
  constructor(url, { withCredentials = false, share = null, poll = false, mute = 5_000, silence = 45_000 } = {}) {
    super();
    if (share !== null && (typeof share !== 'string' || share === '')) {
      throw new TypeError('share: a string that names for whom the page reads, as a user id');
    }
    this.url = new URL(url, globalThis.document?.baseURI ?? location.href).href;
    this.withCredentials = withCredentials;
    this.#options = { mute, silence };
    if (poll || !globalThis.TextDecoderStream) this.#pollsUntil = Infinity;
    for (const type of ['open', 'message', 'error', 'gap']) {
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }

    const { signal } = this.#closed;
    const timer = setInterval(() => this.#watch(silence), Math.min(1_000, mute / 4, silence / 4));
    signal.addEventListener('abort', () => clearInterval(timer));
    // Timers stand still while a phone sleeps, and what the network brought meanwhile may be lost.
    globalThis.document?.addEventListener('visibilitychange', () => this.#wake(), { signal });
    globalThis.addEventListener('online', () => this.#wake(), { signal });
    this.#connect();
    // Browsers have locks in secure contexts only: over plain HTTP from another machine, tabs do not share.
    if (share !== null && navigator.locks && globalThis.BroadcastChannel) this.#join(share);
  }

  get readyState() {
    return this.#state;
  }

  /** How events come: `stream` or `poll` on a connection of its own, `shared` from another tab. */
  get transport() {
    return this.#own ? (this.#polls ? 'poll' : 'stream') : 'shared';
  }

  close() {
    this.#state = CLOSED;
    this.#own?.abort();
    this.#closed.abort();
    this.#channel?.close();
    this.#release();
  }

  // ---- What comes, from wherever ----

  /** Moves on to an id, with an event or without one, and tells the tabs that follow. */
  #take(id, type, data) {
    if (this.#state === CLOSED) return; // By the page, while it was given the event before.
    const before = this.#last;
    this.#last = id;
    this.#tell({ before, id, type, data });
    if (type) {
      const { origin } = new URL(this.url);
      this.dispatchEvent(new MessageEvent(type, { data, lastEventId: id, origin }));
    } else if (this.#own && !this.#leads) {
      this.#channel?.postMessage({ asks: true }); // Perhaps this tab has all that the leading one has.
    }
  }

  #enter(state) {
    if (this.#state === CLOSED) return;
    this.#state = state;
    this.#tell();
    if (state === CLOSED) this.close();
    this.dispatchEvent(new Event(state === OPEN ? 'open' : 'error'));
  }

  /** Something has come on its own connection. */
  #arrived() {
    this.#heard = Date.now();
    this.#unheard = false;
    this.#failures = 0;
    if (this.#state === CONNECTING) this.#enter(OPEN);
  }

  #watch(patience) {
    const silence = Date.now() - this.#heard;
    if (this.#unheard && silence > this.#options.mute) {
      this.#pollsUntil = Date.now() + POLLS_FOR;
      this.#connect();
    } else if (silence > patience) {
      this.#pollNoMore();
      this.#connect(); // Also when it is another tab that has gone silent.
    }
  }

  /** What looked mute was perhaps a network that had gone, and polls failed as well. */
  #pollNoMore() {
    if (this.#pollsUntil !== Infinity) this.#pollsUntil = 0;
  }

  /** The page is looked at again, or the network is back. */
  #wake() {
    if (this.#own && this.#state === CONNECTING && !this.#unheard) this.#connect();
    else this.#watch(this.#options.silence / 2);
  }

  // ---- Its own connection ----

  #connect() {
    this.#own?.abort();
    this.#own = new AbortController();
    this.#heard = Date.now();
    this.#unheard = false;
    this.#run(this.#own.signal);
  }

  get #polls() {
    return Date.now() < this.#pollsUntil;
  }

  /** Reads, and comes back when that ends, until it is told to stop. */
  async #run(signal) {
    while (!signal.aborted) {
      try {
        await (this.#polls ? this.#poll(signal) : this.#stream(signal));
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refusal) return this.#enter(CLOSED);
        this.#pollNoMore();
      }
      if (signal.aborted) return;
      this.#unheard = false;
      this.#enter(CONNECTING);
      const longer = Math.min(this.#retry * 2 ** this.#failures++, Math.max(this.#retry, LONGEST_PAUSE));
      const wait = longer * (1 + Math.random() / 2);
      this.#heard = Date.now() + wait; // Until then, silence is no wonder.
      await pause(wait, signal);
    }
  }

  /** One request. The id goes into the query: as a field, other origins would have to allow it first. */
  async #ask(signal, method, accept) {
    const url = new URL(this.url);
    if (this.#last) url.searchParams.set('last_event_id', this.#last);
    if (accept === 'application/json') url.searchParams.set('poll', '');
    const response = await fetch(url, {
      method,
      signal,
      headers: { Accept: accept },
      cache: 'no-store',
      credentials: this.withCredentials ? 'include' : 'same-origin',
    });
    const { status } = response;
    if (status !== 200) response.body?.cancel();
    if (status === 204 || (status >= 400 && status < 500 && !TRY_AGAIN.includes(status))) throw new Refusal();
    if (status !== 200 || !response.headers.get('Content-Type')?.startsWith(accept)) throw new Error(`${status}`);
    return response;
  }

  async #stream(signal) {
    this.#unheard = true;
    const response = await this.#ask(signal, 'GET', 'text/event-stream');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const event = { id: this.#last, type: '', data: [] };
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      this.#arrived();
      const lines = (text + value).split(/\r\n|\n|\r(?!$)/); // A CR at the end may be half of a CRLF.
      text = lines.pop();
      for (const line of lines) this.#line(line, event);
    }
  }

  /** One line of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). */
  #line(line, event) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (line === '') {
      const { id, type, data } = event;
      if (data.length) this.#take(id, type || 'message', data.join('\n'));
      else this.#take(id);
      Object.assign(event, { type: '', data: [] });
    } else if (field === '') {
      this.#tell(); // A comment, as heartbeats are: those who follow hear it too.
    } else if (field === 'data') {
      event.data.push(value);
    } else if (field === 'event') {
      event.type = value;
    } else if (field === 'id' && !value.includes('\0')) {
      event.id = value;
    } else if (field === 'retry' && /^\d+$/.test(value)) {
      this.#retry = Number(value);
    }
  }

  async #poll(signal) {
    // A HEAD is answered at once: whether the server is there.
    await this.#ask(signal, 'HEAD', 'application/json');
    while (this.#polls && !signal.aborted) {
      this.#arrived();
      const asked = Date.now();
      const response = await this.#ask(signal, 'GET', 'application/json');
      const { events, last_event_id } = await response.json();
      if (signal.aborted) return;
      this.#arrived();
      for (const { id, event, data } of events) this.#take(id || this.#last, event, data);
      this.#take(last_event_id);
      // A server with too many who wait answers at once.
      if (!events.length && Date.now() - asked < 1_000) await pause(1_000 * (1 + Math.random()), signal);
    }
  }

  // ---- The other tabs. Each message says which id the leading tab had before and has now, so that nothing that a tab
  // ---- missed, be it asleep, stays unnoticed. ----

  #join(share) {
    const name = `tiny-sse ${JSON.stringify([share, this.withCredentials, this.url])}`;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    // The lock is whoever asked first, and goes to the next one when that tab is closed or crashes.
    const lead = () => {
      this.#leads = true;
      if (!this.#own) this.#connect();
      return new Promise((release) => (this.#release = release));
    };
    const { signal } = this.#closed;
    navigator.locks.request(name, { signal }, lead).catch(() => {}); // Closed before it was its turn.
  }

  #tell(message = { before: this.#last, id: this.#last }) {
    if (this.#leads) this.#channel.postMessage({ ...message, state: this.#state });
  }

  #hear({ asks, before, id, type, data, state }) {
    if (this.#state === CLOSED) return;
    if (asks) return this.#tell();
    if (this.#leads) return; // What the tab before had still to say comes on its own connection, too.
    if (this.#own) {
      // It reads on its own until it has all that the leading tab has.
      if (state !== OPEN || !this.#last || !covers(this.#last, id)) return;
      this.#own.abort();
      this.#own = null;
      this.#unheard = false;
      this.#arrived();
      return;
    }
    this.#heard = Date.now();
    const had = before !== this.#last && covers(this.#last, id); // Before it followed.
    if (!had && !covers(this.#last, before)) return this.#connect(); // It missed something.
    if (!had) this.#take(id, type, data);
    if (state !== this.#state) this.#enter(state);
  }
}

/** The server does not want to be asked again. */
class Refusal extends Error {}

/** Whether nothing lies between one id and another one that is ahead. A hub's ids are a start of it and a number. */
function covers(ahead, id) {
  const [a, b] = [ahead, id].map((text) => /^([0-9a-f]{16})-(\d+)$/.exec(text));
  return ahead === id || (a !== null && b !== null && a[1] === b[1] && Number(a[2]) >= Number(b[2]));
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => resolve(clearTimeout(timer)));
  });
}

// Checks in a page: each runs on its own and is reported to the test, one line each.

const PATIENCE_MS = 50_000;

/** Runs a check, and reports how it went. */
export async function check(name, run) {
  try {
    await Promise.race([run(), pause(PATIENCE_MS).then(() => fail('it hangs'))]);
    await report(`ok ${name}`);
  } catch (error) {
    await report(`failed ${name}: ${error.stack ?? error}`);
  }
}

/** Tells the test that there is nothing more to come. */
export function done() {
  return report('done');
}

export function fail(why) {
  throw new Error(why);
}

/** Compares two values by what they look like as JSON. */
export function equal(actual, expected) {
  const [is, should] = [actual, expected].map((value) => JSON.stringify(value));
  if (is !== should) fail(`expected ${cut(should)}, got ${cut(is)}`);
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** An EventSource whose events are awaited one by one; none is missed that comes before it is awaited. */
export class Stream {
  #came = [];
  #wanted = [];

  constructor(url, types = ['message'], options = {}) {
    this.source = new EventSource(url, options);
    for (const type of ['open', 'error', ...types]) {
      this.source.addEventListener(type, (event) => {
        this.#came.push(event);
        this.#match();
      });
    }
  }

  /** The next event of this type. Those of other types stay. */
  next(type = 'message') {
    return new Promise((resolve) => {
      this.#wanted.push({ type, resolve });
      this.#match();
    });
  }

  /** The types of the events that came and that nobody awaited. */
  get rest() {
    return this.#came.map((event) => event.type);
  }

  close() {
    this.source.close();
  }

  #match() {
    this.#wanted = this.#wanted.filter(({ type, resolve }) => {
      const at = this.#came.findIndex((event) => event.type === type);
      if (at < 0) return true;
      resolve(this.#came.splice(at, 1)[0]);
      return false;
    });
  }
}

/** Posts a line until it has arrived: the server may be away for a while. */
async function report(line) {
  for (;;) {
    try {
      if ((await fetch('/findings', { method: 'POST', body: line })).ok) return;
    } catch {
      await pause(50);
    }
  }
}

function cut(text) {
  return text?.length > 400 ? `${text.slice(0, 400)}… (${text.length} characters)` : text;
}

addEventListener('error', (event) => report(`failed page: ${event.message}`));
addEventListener('unhandledrejection', (event) => report(`failed page: ${event.reason}`));

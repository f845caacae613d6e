// How the EventSource of a browser reconnects to the hub of tests/browser_hub.rs.

import { Stream, check, done, equal, fail } from '/check.js';

/** Makes the server do something. */
async function ask(what) {
  const { status } = await fetch(`/do/${what}`, { method: 'POST' });
  equal(status, 204);
}

async function using(stream, run) {
  try {
    await run(stream);
  } finally {
    stream.close();
  }
}

await check('no number is missed or comes twice, however often the stream ends', () =>
  using(new Stream('/events/numbers'), async (stream) => {
    await stream.next('open');
    await ask('count'); // The server counts until it is told to stop.
    const first = Number((await stream.next()).data);
    let expected = first + 1;
    for (let end = 0; end < 3; end++) {
      for (let i = 0; i < 200; i++) equal(Number((await stream.next()).data), expected++);
      await ask('close');
      await stream.next('error');
      await stream.next('open');
    }
    await ask('stop');
    for (;;) {
      const { data } = await stream.next();
      if (data === 'stopped') break;
      equal(Number(data), expected++);
    }
    equal(stream.rest.filter((type) => type === 'message'), []);
  }),
);

await check('a reader that has seen no event yet misses none either', () =>
  using(new Stream('/events/quiet'), async (stream) => {
    await stream.next('open');
    await ask('break-silence'); // The stream ends, and an event is published before the browser reconnects.
    equal((await stream.next()).data, 'the first');
    equal(stream.rest.filter((type) => type === 'message'), []);
  }),
);

await check('events that the history no longer has are a gap, and the stream goes on after it', async () => {
  let start;
  await using(new Stream('/short/news'), async (stream) => {
    await stream.next('open');
    await ask('news');
    start = (await stream.next()).lastEventId;
  });
  for (let i = 0; i < 9; i++) await ask('news'); // Of these, three are kept.
  await using(new Stream(`/short/news?last_event_id=${start}`, ['message', 'gap']), async (stream) => {
    const gap = await stream.next('gap');
    const { from, to, lost } = JSON.parse(gap.data);
    equal([from, to], [start, gap.lastEventId]);
    if (lost !== 6 && lost !== null) fail(`${lost} events are said to be lost`);
    equal((await stream.next()).data, 'news 8');
    equal((await stream.next()).data, 'news 9');
    equal((await stream.next()).data, 'news 10');
  });
});

await check('an id that the server does not know is a gap', () =>
  using(new Stream('/short/news?last_event_id=0123456789abcdef-5', ['message', 'gap']), async (stream) => {
    const { from, lost } = JSON.parse((await stream.next('gap')).data);
    equal([from, lost], ['0123456789abcdef-5', null]);
    equal((await stream.next()).data, 'news 8');
  }),
);

await check('a new page gets the newest value first', () =>
  using(new Stream('/retained/news'), async (stream) => {
    equal((await stream.next()).data, 'news 10');
  }),
);

await check('a finished stream is not opened again', () =>
  using(new Stream('/events/exam'), async (stream) => {
    await stream.next('open');
    await ask('end');
    equal((await stream.next()).data, 'time is up');
    do {
      await stream.next('error');
    } while (stream.source.readyState !== EventSource.CLOSED);
  }),
);

await done();

//! What the script that adds costs Redis, beside a bare `XADD`, and beside one that also remembers a token.

use std::time::Duration;

use crate::Result;
use crate::client::processor_time;
use crate::logs::{Redis, fresh_name};

const PIPELINES: usize = 300;
const PIPELINE_EVENTS: usize = 256;

/// Keys: stream, epochs. Arguments: epoch, data, token. A script of nothing is a bare `XADD`.
pub(crate) const VARIANTS: [(&str, &str); 3] = [
    ("`XADD` alone", ""),
    (
        "`XADD` by a script that checks the epoch, as here",
        r"local newest = redis.call('LINDEX', KEYS[2], -1)
        if newest and newest:sub(1, 16) ~= ARGV[1] then return redis.error_reply('STALE') end
        return redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000000, '0-*',
            'e', ARGV[1], 't', 'load', 'n', '', 'd', ARGV[2])",
    ),
    (
        "the same, with a token that is remembered for a minute",
        r"local newest = redis.call('LINDEX', KEYS[2], -1)
        if newest and newest:sub(1, 16) ~= ARGV[1] then return redis.error_reply('STALE') end
        local known = redis.call('GET', KEYS[2] .. ARGV[3])
        if known then return known end
        local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000000, '0-*',
            'e', ARGV[1], 't', 'load', 'n', '', 'd', ARGV[2])
        redis.call('SET', KEYS[2] .. ARGV[3], id, 'EX', 60)
        return id",
    ),
];

/// Returns the microseconds that Redis takes for an event.
pub(crate) fn redis_time(redis: &Redis, script: &str, size: usize) -> Result<f64> {
    let name = fresh_name();
    let (stream, epochs) = (format!("{{{name}}}:stream"), format!("{{{name}}}:epochs"));
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port))?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
    let epoch = "0123456789abcdef";
    redis::cmd("RPUSH")
        .arg(&epochs)
        .arg(epoch)
        .query::<()>(&mut connection)?;
    let sha: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(script)
        .query(&mut connection)?;
    let data = "x".repeat(size);
    let before = processor_time(redis.process.id())?;
    for pipeline in 0..PIPELINES {
        let mut pipe = redis::pipe();
        for event in 0..PIPELINE_EVENTS {
            if script.is_empty() {
                let add = pipe
                    .cmd("XADD")
                    .arg(&stream)
                    .arg("MAXLEN")
                    .arg("~")
                    .arg(1_000_000)
                    .arg("0-*");
                add.arg("e")
                    .arg(epoch)
                    .arg("t")
                    .arg("load")
                    .arg("n")
                    .arg("")
                    .arg("d")
                    .arg(&data)
                    .ignore();
            } else {
                let call = pipe
                    .cmd("EVALSHA")
                    .arg(&sha)
                    .arg(2)
                    .arg(&stream)
                    .arg(&epochs)
                    .arg(epoch);
                call.arg(&data)
                    .arg(pipeline * PIPELINE_EVENTS + event)
                    .ignore();
            }
        }
        pipe.query::<()>(&mut connection)?;
    }
    let used = processor_time(redis.process.id())?.saturating_sub(before);
    redis::cmd("DEL")
        .arg(&stream)
        .query::<()>(&mut connection)?;
    Ok(used.as_secs_f64() * 1e6 / (PIPELINES * PIPELINE_EVENTS) as f64)
}

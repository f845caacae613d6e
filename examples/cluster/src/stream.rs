//! The Redis side: a stream with the ids `0-1`, `0-2`, ... and a list of the epochs of these sequences, read and begun here.
//!
//! Each script writes at most once. Redis saves two writes of one script as a transaction, and a crash in the middle of it
//! can cost what was acknowledged later (seen with Redis 7.0).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::{Connection, IntoConnectionInfo, ProtocolVersion, Script, Value};
use tiny_sse::{Entry, Event};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The longest wait for an answer of Redis. While Redis hangs, a reader waits at most this long for an old event.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Entries of one read. With events of 4 KiB that is 2 MB.
pub(crate) const READ_ENTRIES: u64 = 500;

/// Begins an epoch if this life of Redis has none yet, or if the stream is new or was replaced.
///
/// Keys: stream, epochs. Arguments: a fresh epoch; 1 if this life of Redis loses nothing that it acknowledges; the newest
/// epoch and sequence that the node knows. A line of the list: epoch, first sequence, life of Redis, the second argument, and
/// what is known of the events before: 0 if all are there, 1 if the last ones may be lost, 2 if all are gone.
const BEGIN_EPOCH: &str = r"
    local info = redis.call('INFO', 'server', 'replication')
    local run = info:match('run_id:(%x+)')
    local last
    if redis.call('EXISTS', KEYS[1]) == 1 then
        local about = redis.call('XINFO', 'STREAM', KEYS[1])
        for i = 1, #about, 2 do
            if about[i] == 'last-generated-id' then last = tonumber(about[i + 1]:match('%d+$')) end
        end
    end
    local newest = redis.call('LINDEX', KEYS[2], -1) or ''
    local epoch, its_run, durable = newest:match('^(%x+) %d+ (%x+) (%d)')
    local replaced = epoch and (not last or epoch == ARGV[3] and last < tonumber(ARGV[4]))
    if its_run == run and not replaced then return end
    -- A replica that took over may lack the last events.
    local same_server = info:match('master_replid2:0+%s')
    local lost = 1
    if not last then lost = epoch and 2 or 0
    elseif not replaced and (durable == '1' and same_server or last == 0 and not epoch) then lost = 0 end
    local first = string.format('%.0f', (last or 0) + 1)
    redis.call('RPUSH', KEYS[2], table.concat({ ARGV[1], first, run, ARGV[2], lost }, ' '))";

/// Creates the stream if it is missing, or leaves out the first sequence of an epoch before which events may have been lost:
/// a reader that reads across that hole is told of a gap. Keys: stream, epochs.
const PREPARE_STREAM: &str = r"
    if redis.call('EXISTS', KEYS[1]) == 0 then
        redis.call('XGROUP', 'CREATE', KEYS[1], 'unused', 0, 'MKSTREAM')
        return
    end
    local last
    local about = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #about, 2 do
        if about[i] == 'last-generated-id' then last = tonumber(about[i + 1]:match('%d+$')) end
    end
    local first, lost = redis.call('LINDEX', KEYS[2], -1):match('^%x+ (%d+) %x+ %d (%d)')
    if lost == '1' and last < tonumber(first) then redis.call('XSETID', KEYS[1], '0-' .. first) end";

/// Appends one event, unless its epoch is not the newest. Keys: stream, epochs. Arguments: epoch, entries to keep, topics,
/// name, data. Returns the id, or nothing if the stream is missing.
pub(crate) const ADD: &str = r"
    local newest = redis.call('LINDEX', KEYS[2], -1)
    if not newest or newest:sub(1, 16) ~= ARGV[1] then return redis.error_reply('STALE another epoch has begun') end
    return redis.call('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], '0-*',
        'e', ARGV[1], 't', ARGV[3], 'n', ARGV[4], 'd', ARGV[5])";

/// Where the log is, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `host:port` or a `redis://` URL.
    pub redis: String,
    /// The name of the log: one stream, with all topics of a hub.
    pub name: String,
    /// About how many events stay in Redis.
    pub keep: u64,
    /// How many of the newest events a node reads before it serves.
    pub load: u64,
}

/// The epochs of the log, oldest first: each epoch with its first sequence. An epoch ends before the next one begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(pub(crate) Vec<(u64, u64)>);

impl Epochs {
    /// Parses the lines of the list.
    fn parse(lines: &[String]) -> Epochs {
        let mut epochs: Vec<(u64, u64)> = Vec::new();
        for line in lines {
            let mut fields = line.split(' ');
            let epoch = fields.next().and_then(parse_epoch);
            let first = fields.next().and_then(|first| first.parse().ok());
            let (Some(epoch), Some(first)) = (epoch, first) else {
                continue;
            };
            if fields.nth(2) == Some("2") {
                epochs.clear();
            }
            // The stream was replaced by one with lower sequences: these epochs have no events any more.
            while epochs.pop_if(|(_, before)| *before > first).is_some() {}
            epochs.push((epoch, first));
        }
        Epochs(epochs)
    }

    /// Returns the newest epoch, 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        self.0.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// Returns the first sequence of the oldest epoch. Older entries have no epoch and are left out.
    pub(crate) fn oldest_sequence(&self) -> u64 {
        self.0.first().map_or(1, |(_, first)| *first)
    }

    /// Returns the epoch of a sequence.
    pub(crate) fn of(&self, sequence: u64) -> u64 {
        let mut newest_first = self.0.iter().rev();
        let epoch = newest_first.find(|(_, first)| *first <= sequence);
        epoch.map_or(0, |(epoch, _)| *epoch)
    }
}

/// What the log has at one moment.
pub(crate) struct Extent {
    pub(crate) newest_epoch: u64,
    /// The last sequence that was given out.
    pub(crate) last: u64,
    /// The last sequence that was removed from the front.
    pub(crate) trimmed: u64,
}

/// One connection to Redis.
pub(crate) struct Link {
    config: LogConfig,
    redis: Connection,
}

impl Link {
    pub(crate) fn connect(config: &LogConfig) -> Result<Link> {
        let url = match config.redis.contains("://") {
            true => config.redis.clone(),
            false => format!("redis://{}", config.redis),
        };
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone();
        let info = info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP2));
        let redis = redis::Client::open(info)?.get_connection_with_timeout(TIMEOUT)?;
        redis.set_read_timeout(Some(TIMEOUT))?;
        redis.set_write_timeout(Some(TIMEOUT))?;
        let config = config.clone();
        Ok(Link { config, redis })
    }

    /// Fails if Redis is too old to give out the ids `0-1`, `0-2`, ...
    pub(crate) fn check_version(&mut self) -> Result<()> {
        let info: String = redis::cmd("INFO").arg("server").query(&mut self.redis)?;
        let version = field(&info, "redis_version").unwrap_or_default();
        let major = version.split('.').next().unwrap_or_default().parse();
        match major.is_ok_and(|major: u32| major >= 7) {
            true => Ok(()),
            false => {
                let at = &self.config.redis;
                Err(format!("Redis at {at} is version {version}; 7.0 or later is needed").into())
            }
        }
    }

    /// Begins an epoch if one is due, and returns all epochs. This comes first on each connection that reads or adds.
    pub(crate) fn hello(&mut self, known: (u64, u64)) -> Result<Epochs> {
        let durable = self.loses_nothing()?;
        let (stream, epochs) = (self.stream(), self.epochs());
        let fresh = RandomState::new().hash_one(std::process::id());
        let begin = Script::new(BEGIN_EPOCH);
        let mut begin = begin.key(&stream);
        begin
            .key(&epochs)
            .arg(format_epoch(fresh))
            .arg(u8::from(durable));
        begin.arg(format_epoch(known.0)).arg(known.1);
        begin.invoke::<()>(&mut self.redis)?;
        let prepare = Script::new(PREPARE_STREAM);
        prepare
            .key(&stream)
            .key(&epochs)
            .invoke::<()>(&mut self.redis)?;
        let lines: Vec<String> = redis::cmd("LRANGE")
            .arg(&epochs)
            .arg(0)
            .arg(-1)
            .query(&mut self.redis)?;
        Ok(Epochs::parse(&lines))
    }

    /// Whether Redis acknowledges only what is on the disk. A Redis that does not say counts as one that may lose events.
    fn loses_nothing(&mut self) -> Result<bool> {
        for (name, value) in [("appendonly", "yes"), ("appendfsync", "always")] {
            let get = redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
            let found = match get.query::<Vec<String>>(&mut self.redis) {
                Ok(pair) => pair.into_iter().nth(1),
                Err(error) if matches!(error.code(), Some("ERR" | "NOPERM")) => None,
                Err(error) => return Err(error.into()),
            };
            if found.as_deref() != Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns what the log has now. Fails if the stream is missing.
    pub(crate) fn extent(&mut self) -> Result<Extent> {
        let (stream, epochs) = (self.stream(), self.epochs());
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("XINFO").arg("STREAM").arg(&stream);
        pipe.cmd("LINDEX").arg(&epochs).arg(-1);
        let (about, newest): (Vec<Value>, Option<String>) = pipe.query(&mut self.redis)?;
        let about = |name: &str| {
            about
                .chunks_exact(2)
                .find(|pair| text(&pair[0]) == name)
                .map(|pair| &pair[1])
        };
        let last = about("last-generated-id").and_then(sequence).unwrap_or(0);
        let first = match about("first-entry") {
            Some(Value::Array(entry)) => entry.first().and_then(sequence),
            _ => None,
        };
        Ok(Extent {
            newest_epoch: newest.as_deref().and_then(parse_epoch).unwrap_or(0),
            last,
            trimmed: first.map_or(last, |first| first - 1),
        })
    }

    /// Waits at most this long for entries after a sequence, and returns up to [`READ_ENTRIES`].
    pub(crate) fn wait(&mut self, after: u64, wait: Duration) -> Result<Vec<Stored>> {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(READ_ENTRIES)
            .arg("BLOCK")
            .arg(wait.as_millis() as u64);
        command
            .arg("STREAMS")
            .arg(self.stream())
            .arg(format!("0-{after}"));
        let reply: Value = command.query(&mut self.redis)?;
        let Value::Array(streams) = reply else {
            return Ok(Vec::new()); // The time is over.
        };
        match streams.first() {
            Some(Value::Array(stream)) if stream.len() == 2 => Ok(entries(&stream[1])),
            _ => Ok(Vec::new()),
        }
    }

    /// Reads the entries of a range, at most `count`, and the newest epoch at that moment.
    pub(crate) fn range(&mut self, from: u64, to: u64, count: u64) -> Result<(Vec<Stored>, u64)> {
        let (stream, epochs) = (self.stream(), self.epochs());
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("XRANGE").arg(&stream);
        pipe.arg(format!("0-{from}"))
            .arg(format!("0-{to}"))
            .arg("COUNT")
            .arg(count);
        pipe.cmd("LINDEX").arg(&epochs).arg(-1);
        let (found, newest): (Value, Option<String>) = pipe.query(&mut self.redis)?;
        let newest = newest.as_deref().and_then(parse_epoch).unwrap_or(0);
        Ok((entries(&found), newest))
    }

    /// Loads the script that adds, and returns its name.
    pub(crate) fn load_add(&mut self) -> Result<String> {
        Ok(redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(ADD)
            .query(&mut self.redis)?)
    }

    pub(crate) fn ping(&mut self) -> Result<()> {
        Ok(redis::cmd("PING").query(&mut self.redis)?)
    }

    /// Sends commands in one write, and returns one answer for each.
    pub(crate) fn pipeline(
        &mut self,
        commands: &[u8],
        count: usize,
    ) -> redis::RedisResult<Vec<Value>> {
        redis::ConnectionLike::req_packed_commands(&mut self.redis, commands, 0, count)
    }

    pub(crate) fn keep(&self) -> u64 {
        self.config.keep
    }

    pub(crate) fn stream(&self) -> String {
        self.key("stream")
    }

    pub(crate) fn epochs(&self) -> String {
        self.key("epochs")
    }

    /// The part in braces decides where a Redis Cluster keeps a key: both keys of a log are on one machine.
    fn key(&self, part: &str) -> String {
        format!("{{{}}}:{part}", self.config.name)
    }
}

/// An entry as it is in the stream.
pub(crate) struct Stored {
    /// The epoch that its publisher named. `None` if another program added it.
    pub(crate) epoch: Option<u64>,
    pub(crate) entry: Entry,
}

impl Stored {
    /// Fails unless the entry is of the epoch that its sequence has in this list.
    pub(crate) fn check(self, epochs: &Epochs) -> Result<Entry> {
        let expected = epochs.of(self.entry.sequence);
        match self.epoch.is_none_or(|epoch| epoch == expected) {
            true => Ok(self.entry),
            false => Err("the stream was replaced".into()),
        }
    }
}

fn entries(value: &Value) -> Vec<Stored> {
    let Value::Array(entries) = value else {
        return Vec::new();
    };
    entries.iter().filter_map(entry).collect()
}

/// Takes an entry apart. Any program may have written the entry: fields that are missing are empty.
fn entry(value: &Value) -> Option<Stored> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [id, Value::Array(fields)] = &parts[..] else {
        return None;
    };
    let get = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs
            .find(|pair| text(&pair[0]) == name)
            .map_or("", |pair| text(&pair[1]))
    };
    let data = Event::data(get("d"));
    let event = match get("n") {
        "" => data,
        name => data.clone().event(name).unwrap_or(data),
    };
    Some(Stored {
        epoch: parse_epoch(get("e")),
        entry: Entry {
            sequence: sequence(id)?,
            topics: get("t").split('\t').map(str::to_string).collect(),
            event,
        },
    })
}

/// Returns the sequence of an id: 17 of `0-17`.
pub(crate) fn sequence(id: &Value) -> Option<u64> {
    text(id).strip_prefix("0-")?.parse().ok()
}

fn text(value: &Value) -> &str {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

/// Writes an epoch as it stands in ids on the wire.
pub(crate) fn format_epoch(epoch: u64) -> String {
    format!("{epoch:016x}")
}

fn parse_epoch(text: &str) -> Option<u64> {
    u64::from_str_radix(text.get(..16)?, 16).ok()
}

/// Returns a field of what `INFO` answers.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

//! The auto traits and common traits of every public type: a private change that takes one away does not compile here.

use std::error::Error;
use std::fmt::Debug;

use tiny_sse::*;

fn sent<T: Send + Debug>() {}
fn shared<T: Send + Sync + Debug>() {}
fn value<T: Clone + PartialEq + Send + Sync + Debug>() {}
fn error<T: Error + Clone + PartialEq + Send + Sync + 'static>() {}

#[test]
fn types_can_move_between_threads_and_be_compared() {
    // What a program has one of, or what ends with its use.
    sent::<Sse>();
    sent::<Response>();
    sent::<Subscription>();
    sent::<HubReceiver>();
    sent::<EventSource>();
    sent::<Events>();
    sent::<Feed>();

    shared::<Server>();
    shared::<ServerHandle>();
    shared::<Request>();
    shared::<Next>();
    shared::<Decoder>();
    shared::<Hub>();
    shared::<HubConfig>();
    shared::<Reader>();
    shared::<StreamEnd>();

    value::<Config>();
    value::<ServerStats>();
    value::<Event>();
    value::<Message>();
    value::<Decoded>();
    value::<Method>();
    value::<Cookie>();
    value::<SameSite>();
    value::<Cors>();
    value::<Durability>();
    value::<Lag>();
    value::<Replay>();
    value::<OpeningId>();
    value::<EndReason>();
    value::<EventId>();
    value::<Entry>();
    value::<Stats>();

    error::<InvalidField>();
    error::<EventTooLong>();
    error::<InvalidName>();
    error::<PublishError>();
    error::<StillOpen>();
}

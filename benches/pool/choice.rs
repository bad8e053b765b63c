//! Times the choice of a box alone, without sockets.

use std::time::{Duration, Instant};

use sparkgap::fleet::{BoxId, Candidate, Dispatch, Sign, Spent, Ticket};
use sparkgap::lane::Lane;

const BOXES: u64 = 8;

/// As many conversations and beginnings as are remembered.
const CONVERSATIONS: u64 = 8_000;

const CHOICES: u64 = 100_000;

/// The requests that run meanwhile, half of the places.
const RUNNING: usize = 32;

/// The time of one choice among eight boxes that are half full: to enter the line, to get a box, and to end.
pub(crate) fn time() -> Duration {
    let (mut dispatch, began) = (Dispatch::default(), Instant::now());
    let ids: Vec<BoxId> = (0..BOXES).map(|name| dispatch.add(name, began)).collect();
    ids.iter().for_each(|id| dispatch.set(*id, Some(8), false));
    let mut running = std::collections::VecDeque::new();
    for number in 0..CHOICES {
        // The same conversation comes again after all others, with a longer prompt.
        let prompt = 15_000 + number / CONVERSATIONS * 1_000;
        let candidate = |id: &BoxId| Candidate { id: *id, model: "model".into(), rank: 0 };
        let ticket = Ticket {
            candidates: ids.iter().map(candidate).collect(),
            conversation: number % CONVERSATIONS,
            head: (u64::MAX, 14_000),
            prompt,
            lane: Lane::Person,
            client: number % 8,
            waits_for_health: true,
            is_failover: false,
        };
        let now = began + Duration::from_millis(number * 10);
        let joined = dispatch.join(ticket, now).unwrap();
        dispatch.serve(now);
        dispatch.collect(joined).unwrap();
        dispatch.first_token(joined, now);
        running.push_back((joined, prompt));
        if running.len() > RUNNING {
            let (ended, prompt) = running.pop_front().unwrap();
            dispatch.end(ended, Sign::Answered, Spent { prompt, cached: 14_000, completion: 100 }, now);
        }
    }
    began.elapsed() / CHOICES as u32
}

//! The box itself: its figures, its memory, its line, and what goes wrong with it.

use crate::physics::cache::{BLOCK, PrefixCache};
use crate::physics::engine::{Engine, Event, EventKind, Job, Profile, chain};
use crate::physics::rates::Rates;
use sparkgap::demo::GPT_OSS_TOTALS;

/// A prompt of its own, which shares nothing with prompts of other seeds.
fn job(seed: u64, prompt: u64, output: u64) -> Job {
    let mut hash = seed;
    let block = |at| {
        hash = chain(hash, at);
        hash
    };
    Job { blocks: (0..(prompt + output) / BLOCK).map(block).collect(), prompt, output }
}

/// Works until nothing is left to do.
fn run(engine: &mut Engine) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(at) = engine.next_event() {
        events.extend(engine.advance(at));
    }
    events
}

fn at(events: &[Event], id: u64, kind: EventKind) -> f64 {
    events.iter().find(|event| event.id == id && event.kind == kind).unwrap().at
}

/// The seconds from the arrival of this request at an idle box to its first token.
fn first_token(engine: &mut Engine, now: f64, job: Job) -> f64 {
    let id = engine.arrive(now, job);
    at(&run(engine), id, EventKind::FirstToken) - now
}

#[track_caller]
fn assert_near(value: f64, published: f64) {
    assert!((value / published - 1.0).abs() < 0.05, "{value} is not within 5 % of {published}");
}

fn small(slots: usize, kv_tokens: u64) -> Engine {
    Engine::new(Profile { slots, kv_tokens, ..Profile::spark() })
}

#[test]
fn a_prompt_takes_the_published_time() {
    for (prompt, rate) in [(8192, 6265.0), (131_072, 2515.0)] {
        let mut engine = Engine::new(Profile::spark());
        assert_near(prompt as f64 / first_token(&mut engine, 0.0, job(1, prompt, 1)), rate);
    }
    // The published 64 s need 148 k tokens at these rates; see `rates`.
    assert_near(Rates::spark().prefill(0, 148_450), 64.0);
}

#[test]
fn answers_are_written_at_the_published_rates() {
    for (streams, total) in GPT_OSS_TOTALS {
        let mut engine = Engine::new(Profile { rates: Rates::gpt_oss_120b(), ..Profile::spark() });
        let ids: Vec<u64> =
            (0..streams as u64).map(|seed| engine.arrive(0.0, job(seed, 100, 2000))).collect();
        let events = run(&mut engine);
        let last = ids.iter().map(|id| at(&events, *id, EventKind::FirstToken)).fold(0.0, f64::max);
        let end = ids.iter().map(|id| at(&events, *id, EventKind::Done)).fold(0.0, f64::max);
        assert_near(streams * 1999.0 / (end - last), total);
    }
    assert_near(1.0 / Rates::spark().decode(1), 97.7);
}

#[test]
fn rates_between_and_beyond_the_figures_follow_their_line() {
    let rates = Rates::gpt_oss_120b();
    for streams in 1..64 {
        let (less, more) = (rates.decode(streams), rates.decode(streams + 1));
        let more_in_total = (streams + 1) as f64 / more > streams as f64 / less;
        assert!(less < more && more_in_total, "{streams}: {less}, then {more}");
    }
    assert_near(rates.slower(3.0).decode(5), 3.0 * rates.decode(5));
    assert_near(rates.slower(3.0).prefill(700, 90), 3.0 * rates.prefill(700, 90));
    assert_eq!(rates.decode(0), 0.0);
}

#[test]
fn the_next_turn_finds_prompt_and_answer_in_memory() {
    let mut engine = Engine::new(Profile::spark());
    let cold = first_token(&mut engine, 0.0, job(1, 32_000, 320));
    // Its answer is a part of the next prompt.
    let warm = first_token(&mut engine, 100.0, job(1, 32_320 + 160, 1));
    assert!(warm < cold / 20.0, "{cold} s, then {warm} s");
    let found = engine.totals().cached;
    assert!((32_320 - BLOCK..=32_320).contains(&found), "{found}");
    assert_eq!(engine.totals().prefilled + found, engine.totals().prompt);
}

#[test]
fn a_whole_prompt_in_memory_still_computes_its_last_token() {
    let mut engine = Engine::new(Profile::spark());
    run_one(&mut engine, job(1, 1600, 1));
    let again = job(1, 1600, 1);
    assert_eq!(engine.would_find(&again), 1600 - BLOCK);
    run_one(&mut engine, again);
    assert_eq!(engine.totals().prefilled, 1600 + BLOCK);
}

fn run_one(engine: &mut Engine, job: Job) -> Vec<Event> {
    let now = engine.next_event().unwrap_or(0.0);
    engine.arrive(now, job);
    run(engine)
}

#[test]
fn two_that_compute_the_same_prompt_at_once_share_it_afterwards() {
    let mut engine = small(4, 64_000);
    engine.arrive(0.0, job(1, 16_000, 10));
    engine.arrive(0.0, job(1, 16_000, 10));
    run(&mut engine);
    assert_eq!(engine.kv_usage(), 0.0);
    assert_eq!(engine.would_find(&job(1, 16_001, 1)), 16_000);
}

#[test]
fn the_prompt_that_was_used_longest_ago_is_forgotten_from_its_end() {
    let mut engine = small(4, 40_000);
    run_one(&mut engine, job(1, 16_001, 1));
    run_one(&mut engine, job(2, 16_001, 1));
    // The first one is used again, so the second one is the oldest.
    run_one(&mut engine, job(1, 16_001, 1));
    run_one(&mut engine, job(3, 16_001, 1));
    assert_eq!(engine.would_find(&job(1, 16_001, 1)), 16_000);
    let left = engine.would_find(&job(2, 16_001, 1));
    assert!((1..16_000).contains(&left), "{left} tokens of its beginning are left");
}

#[test]
fn a_request_waits_for_a_place_in_the_order_of_arrival() {
    let mut engine = small(2, 640_000);
    let ids: Vec<u64> = (0..4).map(|seed| engine.arrive(0.0, job(seed, 1000, 100))).collect();
    let mut events = engine.advance(0.5);
    assert_eq!((engine.running(), engine.waiting()), (2, 2));
    events.extend(run(&mut engine));
    assert!(at(&events, ids[2], EventKind::Started) >= at(&events, ids[0], EventKind::Done));
    let firsts: Vec<f64> = ids.iter().map(|id| at(&events, *id, EventKind::FirstToken)).collect();
    assert!(firsts.is_sorted(), "{firsts:?}");
}

#[test]
fn a_request_waits_for_memory_that_another_one_uses() {
    let mut engine = small(8, 32_000);
    let first = engine.arrive(0.0, job(1, 20_000, 100));
    let second = engine.arrive(0.0, job(2, 20_000, 100));
    engine.advance(0.5);
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    assert!(engine.kv_usage() > 0.6, "{}", engine.kv_usage());
    let events = run(&mut engine);
    assert!(at(&events, second, EventKind::Started) >= at(&events, first, EventKind::Done));
}

#[test]
fn a_long_prompt_slows_the_answers_beside_it() {
    let alone = {
        let mut engine = Engine::new(Profile::spark());
        let id = engine.arrive(0.0, job(1, 100, 200));
        at(&run(&mut engine), id, EventKind::Done)
    };
    let mut engine = Engine::new(Profile::spark());
    let id = engine.arrive(0.0, job(1, 100, 200));
    engine.arrive(0.0, job(2, 64_000, 1));
    let beside = at(&run(&mut engine), id, EventKind::Done);
    assert!(beside > alone + 10.0, "{alone} s alone, {beside} s beside a prompt of 64,000 tokens");
}

#[test]
fn a_request_whose_client_left_frees_its_place_and_memory() {
    let mut engine = small(1, 640_000);
    let first = engine.arrive(0.0, job(1, 100_000, 100));
    let second = engine.arrive(0.0, job(2, 1000, 10));
    let third = engine.arrive(0.0, job(3, 1000, 10));
    engine.advance(1.0);
    engine.abort(first);
    engine.abort(second);
    engine.abort(77);
    assert_eq!((engine.running(), engine.waiting(), engine.kv_usage()), (0, 1, 0.0));
    let events = run(&mut engine);
    assert!(at(&events, third, EventKind::Done) < 3.0);
    assert_eq!(engine.totals().done, 1);
    // The work that was done for it can still be found.
    assert!(engine.would_find(&job(1, 100_000, 1)) > 2000);
}

#[test]
fn a_box_that_hangs_does_nothing_until_it_works_again() {
    let mut engine = Engine::new(Profile::spark());
    let id = engine.arrive(0.0, job(1, 1000, 1000));
    engine.advance(3.0);
    let before = (engine.totals(), engine.produced(id));
    engine.set_speed(3.0, 0.0);
    assert_eq!(engine.next_event(), None);
    assert_eq!(engine.advance(1000.0), []);
    engine.arrive(1000.0, job(2, 1000, 1));
    assert_eq!((engine.totals(), engine.produced(id)), before);
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    engine.set_speed(1000.0, 1.0);
    let end = at(&run(&mut engine), id, EventKind::Done);
    assert!((1000.0..1020.0).contains(&end), "{end}");
}

#[test]
fn an_idle_box_that_hangs_starts_nothing() {
    let mut engine = Engine::new(Profile::spark());
    engine.set_speed(0.0, 0.0);
    engine.arrive(5.0, job(1, 1000, 1));
    assert_eq!(engine.advance(50.0), []);
    assert_eq!((engine.running(), engine.waiting()), (0, 1));
    engine.set_speed(50.0, 1.0);
    assert!(run(&mut engine).iter().all(|event| event.at >= 50.0));
}

#[test]
fn a_slow_box_takes_ten_times_as_long() {
    let mut engine = Engine::new(Profile::spark());
    let quick = first_token(&mut engine, 0.0, job(1, 20_000, 1));
    engine.set_speed(100.0, 0.1);
    assert_near(first_token(&mut engine, 100.0, job(2, 20_000, 1)), 10.0 * quick);
}

#[test]
#[should_panic(expected = "wait forever")]
fn a_request_larger_than_the_memory_is_refused() {
    small(1, 1000).arrive(0.0, job(1, 1000, 100));
}

#[test]
fn a_full_memory_gives_nothing_out() {
    let mut cache = PrefixCache::new(160, BLOCK);
    assert!(cache.reserve(&[], 8));
    assert!(!cache.reserve(&[], 3));
    assert!(cache.publish(5) && !cache.publish(5));
    cache.release(&[5], 7);
    assert_eq!((cache.usage(), cache.matched(&[5, 6])), (0.0, 1));
    // A block that is found cannot be evicted for the same request.
    assert!(!cache.reserve(&[5], 10));
    assert!(cache.reserve(&[5], 9));
    assert_eq!(cache.usage(), 1.0);
}

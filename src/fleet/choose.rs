//! Chooses the upstream of a pool that answers a request soonest.
//!
//! Every upstream that can take the request makes an offer: the seconds until its first token, and the seconds that the
//! request costs those who are there already. A conversation stays at its home, where its prefix is cached, unless
//! another upstream is clearly cheaper.
//!
//! Pure: an offer is a snapshot.

use crate::hash::Fnv;

/// The seconds by which another upstream must be cheaper before a conversation leaves its home.
const LEAVING_S: f64 = 0.5;

/// The share of the home's cost by which another upstream must be cheaper. A move costs more than it shows: the prefix
/// takes memory at two upstreams. From 0.3 to 0.75 the simulation (`tests/pool`) shows little difference; at 0.1
/// conversations that find no memory wander.
const LEAVING_PART: f64 = 0.3;

/// The seconds within which two offers count as equal, so that learned speeds that differ a little do not draw all new
/// conversations to one upstream.
const EQUAL_S: f64 = 0.1;

/// The offer of one upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offer {
    /// A hash of its name, the same in all replicas.
    pub(super) name: u64,
    /// The seconds until the first token, and what the request costs others.
    pub(super) cost: f64,
    /// True if the conversation's last turn was here.
    pub(super) is_home: bool,
    /// True if it should get no new work.
    pub(super) drains: bool,
}

/// Why an upstream was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No other one can take the request.
    Only,
    /// The conversation's last turn was there.
    Home,
    /// The cheapest one for a new conversation.
    Cost,
    /// The conversation's home is clearly dearer.
    Moved,
    /// Another upstream has failed with this request.
    Failover,
}

impl Why {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Why::Only => "only",
            Why::Home => "home",
            Why::Cost => "cost",
            Why::Moved => "moved",
            Why::Failover => "failover",
        }
    }
}

/// The index of the offer to take for the conversation with this key. `None` if there are no offers.
pub(super) fn choose(key: u64, offers: &[Offer]) -> Option<(usize, Why)> {
    let may_drain = offers.iter().all(|offer| offer.drains);
    let open = || offers.iter().enumerate().filter(|(_, offer)| may_drain || !offer.drains);
    let cheapest = open().map(|(_, offer)| offer.cost).min_by(f64::total_cmp)?;
    let home = open().find(|(_, offer)| offer.is_home);
    let is_only = open().count() == 1;
    if let Some((index, _)) = home.filter(|(_, offer)| stays(offer.cost, cheapest)) {
        return Some((index, if is_only { Why::Only } else { Why::Home }));
    }
    let equal = open().filter(|(_, offer)| offer.cost <= cheapest + EQUAL_S);
    let (index, _) = equal.max_by_key(|(_, offer)| weight(key, offer.name))?;
    let why = match (is_only, offers.iter().any(|offer| offer.is_home)) {
        (true, _) => Why::Only,
        (_, true) => Why::Moved,
        (_, false) => Why::Cost,
    };
    Some((index, why))
}

/// True if a conversation stays at a home of this cost.
fn stays(home: f64, cheapest: f64) -> bool {
    home - cheapest <= LEAVING_S.max(LEAVING_PART * home)
}

/// The weight of an upstream for a conversation by rendezvous hashing: replicas that share no state agree.
fn weight(key: u64, name: u64) -> u64 {
    Fnv::EMPTY.push(&key.to_le_bytes()).push(&name.to_le_bytes()).mixed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(name: u64, cost: f64) -> Offer {
        Offer { name, cost, is_home: false, drains: false }
    }

    fn home(name: u64, cost: f64) -> Offer {
        Offer { is_home: true, ..offer(name, cost) }
    }

    #[test]
    fn a_conversation_stays_at_home_unless_another_is_clearly_cheaper() {
        for (at_home, elsewhere, expected) in [
            (1.0, 0.6, (0, Why::Home)),
            (1.0, 0.4, (1, Why::Moved)),
            (20.0, 14.5, (0, Why::Home)),
            (20.0, 13.5, (1, Why::Moved)),
            (1.0, 9.0, (0, Why::Home)),
        ] {
            let offers = [home(1, at_home), offer(2, elsewhere)];
            assert_eq!(choose(7, &offers), Some(expected), "{at_home} {elsewhere}");
        }
    }

    #[test]
    fn a_new_conversation_goes_where_it_costs_least() {
        assert_eq!(choose(7, &[offer(1, 3.0), offer(2, 1.0)]), Some((1, Why::Cost)));
        assert_eq!(choose(7, &[offer(1, 3.0)]), Some((0, Why::Only)));
        assert_eq!(choose(7, &[home(1, 3.0)]), Some((0, Why::Only)));
        assert_eq!(choose(7, &[]), None);
    }

    #[test]
    fn equal_offers_are_shared_evenly_and_alike_in_all_replicas() {
        let offers = [offer(11, 1.0), offer(22, 1.05), offer(33, 1.02)];
        let mut counts = [0u32; 3];
        for key in 0..3_000u64 {
            let (index, why) = choose(key, &offers).unwrap();
            assert_eq!(why, Why::Cost);
            // The order of the offers makes no difference.
            let turned = [offers[2], offers[0], offers[1]];
            assert_eq!(turned[choose(key, &turned).unwrap().0].name, offers[index].name);
            counts[index] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_draining_upstream_gets_nothing_while_another_can_take_it() {
        let draining = Offer { drains: true, ..home(1, 0.1) };
        assert_eq!(choose(7, &[draining, offer(2, 50.0)]), Some((1, Why::Only)));
        assert_eq!(choose(7, &[draining]), Some((0, Why::Only)));
        assert_eq!(choose(7, &[draining, offer(2, 50.0), offer(3, 9.0)]), Some((2, Why::Moved)));
    }
}

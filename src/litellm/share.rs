//! The part that an entry has in the requests for its name: `order` and `weight`.
//!
//! | the file says | the entry |
//! |---|---|
//! | nothing, or a positive `weight`, and the lowest `order` of its name | is a member of the pool |
//! | `weight: 0`, or no `weight` where another entry of its order has one | is a backup behind that order: LiteLLM never draws it either while another entry works |
//! | a higher `order`, or none where another entry has one | is a backup, in that order |
//!
//! A weight says nothing more: the requests of a pool go to the member that answers soonest.

use std::collections::BTreeSet;

use super::yaml::{Node, Scalar};

/// The place of `order` beside the parameters.
pub(super) const ORDER_ELSEWHERE: &str = "model_info.order";

/// The settings of one entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListedShare {
    /// Its `order`, if that is a whole number. LiteLLM ignores any other.
    pub(super) order: Option<i64>,
    /// True if `litellm_params` has the order; LiteLLM looks into `model_info` otherwise.
    pub(super) has_own_order: bool,
    pub(super) weight: Option<f64>,
    /// True if the weight is not a number from 0 up. The entry is then one without weight.
    pub(super) is_weight_wrong: bool,
}

impl ListedShare {
    pub(super) fn read(item: &Node) -> ListedShare {
        let of = |section: &str, key: &str| item.get(section)?.get(key).filter(|node| !node.is_null());
        let own = of("litellm_params", "order");
        let order = own.or(of("model_info", "order")).and_then(read_order);
        let listed = of("litellm_params", "weight");
        let weight = listed.and_then(read_weight);
        let is_weight_wrong = listed.is_some() && weight.is_none();
        ListedShare { order, has_own_order: own.is_some(), weight, is_weight_wrong }
    }
}

/// The number in any spelling that LiteLLM takes: `1`, `1.0`, `"1"`.
fn read_order(node: &Node) -> Option<i64> {
    let text = node.text()?;
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

fn read_weight(node: &Node) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "only whether it is zero counts")]
    match node.scalar() {
        Some(Scalar::Int(n)) if n >= 0 => Some(n as f64),
        Some(Scalar::Float(n)) if n >= 0.0 => Some(n),
        _ => None,
    }
}

/// The indices of the entries of one name in the order in which they get requests. Entries of the same rank share them;
/// those of rank 0 are the pool.
pub(super) fn ranked(shares: &[ListedShare]) -> Vec<(usize, usize)> {
    let is_drawn = |share: &ListedShare| share.weight.is_some_and(|weight| weight > 0.0);
    let drawn: BTreeSet<_> = shares.iter().filter(|share| is_drawn(share)).map(|share| share.order).collect();
    // An entry is idle if it has no weight and another one of its order has some.
    let is_idle = |share: &ListedShare| !is_drawn(share) && drawn.contains(&share.order);
    let key = |share: &ListedShare| (share.order.is_none(), share.order, is_idle(share));
    let mut keys: Vec<_> = shares.iter().enumerate().map(|(i, share)| (key(share), i)).collect();
    keys.sort_unstable();
    let mut rank = 0;
    let mut before = keys.first().map(|(key, _)| *key);
    keys.iter()
        .map(|(key, i)| {
            rank += usize::from(before.replace(*key) != Some(*key));
            (*i, rank)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_order_with_weight_is_the_pool() {
        let order = |order: i64| ListedShare { order: Some(order), ..ListedShare::default() };
        let weight = |weight: f64| ListedShare { weight: Some(weight), ..ListedShare::default() };
        let both = |number: i64, more: f64| ListedShare { weight: Some(more), ..order(number) };
        let plain = ListedShare::default();
        for (shares, expected) in [
            (vec![plain, plain], vec![(0, 0), (1, 0)]),
            (vec![weight(0.0), weight(1.0)], vec![(1, 0), (0, 1)]),
            (vec![weight(1.0), plain, weight(3.0)], vec![(0, 0), (2, 0), (1, 1)]),
            // Without any weight above 0 all are drawn.
            (vec![weight(0.0), plain], vec![(0, 0), (1, 0)]),
            (vec![order(2), order(-1), order(2)], vec![(1, 0), (0, 1), (2, 1)]),
            (vec![plain, both(2, 0.0), both(2, 1.0)], vec![(2, 0), (1, 1), (0, 2)]),
            (vec![], vec![]),
        ] {
            assert_eq!(ranked(&shares), expected, "{shares:?}");
        }
    }
}

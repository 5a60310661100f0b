//! Host and path → the trigger that asked for them: the most exact host first, then the longest path. Must never match a
//! path in the middle of a segment, nor let two triggers share one way.

use super::arrival::Decoder;
use crate::sources::push::{guard::Guard, offer::Arrival};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A trigger that is being restarted is answered for with 503 for so long, then its way is unknown.
const AWAY: Duration = Duration::from_secs(10);

/// One trigger's way to its thread.
#[derive(Debug)]
pub struct Way {
    /// Host; empty: any. `*.example.com`: one label more.
    pub host: String,
    /// Path with its leading slash and without one at the end, but for the root.
    pub path: String,
    /// Whose it is.
    pub trigger: String,
    /// Who may call.
    pub guard: Guard,
    /// Requests to events.
    pub decoder: Decoder,
    /// To the thread.
    pub inbox: mpsc::Sender<Arrival>,
}

#[derive(Clone, Debug)]
struct Place {
    way: Arc<Way>,
    /// Since when its thread is gone.
    left: Option<Instant>,
}

impl Place {
    fn is_there(&self) -> bool {
        self.left.is_none_or(|left| left.elapsed() < AWAY)
    }
}

/// All ways; immutable once published.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// By host in small letters; the longest path first.
    hosts: HashMap<String, Vec<Place>>,
}

impl Ways {
    /// With one way more.
    ///
    /// # Errors
    /// Another trigger has it; its name.
    pub fn with(&self, way: Arc<Way>) -> Result<Self, String> {
        let mut next = self.clone();
        next.forget();
        let places = next.hosts.entry(way.host.to_ascii_lowercase()).or_default();
        let taken = places.iter().find(|p| p.way.path == way.path && p.left.is_none());
        if let Some(other) = taken.filter(|p| p.way.trigger != way.trigger) {
            return Err(other.way.trigger.clone());
        }
        places.retain(|p| p.way.path != way.path);
        places.push(Place { way, left: None });
        places.sort_by_key(|p| std::cmp::Reverse(p.way.path.len()));
        Ok(next)
    }

    /// With this way's thread gone.
    pub fn without(&self, way: &Arc<Way>) -> Self {
        let mut next = self.clone();
        next.forget();
        let places = next.hosts.get_mut(&way.host.to_ascii_lowercase()).into_iter().flatten();
        for place in places.filter(|place| Arc::ptr_eq(&place.way, way)) {
            place.left = Some(Instant::now());
        }
        next
    }

    fn forget(&mut self) {
        for places in self.hosts.values_mut() {
            places.retain(Place::is_there);
        }
        self.hosts.retain(|_, places| !places.is_empty());
    }

    /// The way of a request, and what of the path is left for the function (with its leading slash).
    pub fn find<'a>(&self, host: &str, path: &'a str) -> Option<(&Arc<Way>, &'a str)> {
        let host = host.to_ascii_lowercase();
        let wild = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let candidates = [Some(host.as_str()), wild.as_deref(), Some("")];
        let places = candidates.into_iter().flatten().filter_map(|host| self.hosts.get(host)).flatten();
        places.filter(|place| place.is_there()).find_map(|place| {
            let rest = remainder(&place.way.path, path)?;
            Some((&place.way, rest))
        })
    }
}

/// What follows `prefix` in `path`, if the prefix ends where a segment does.
fn remainder<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    if prefix == "/" {
        return path.starts_with('/').then_some(path);
    }
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// The host of a request's authority, without its port.
pub fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The form in which [`Way::path`] is kept.
pub fn tidy(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(trigger: &str, host: &str, path: &str) -> Arc<Way> {
        let (inbox, _) = mpsc::channel(1);
        let (host, path, trigger) = (host.to_owned(), tidy(path), trigger.to_owned());
        Arc::new(Way { host, path, trigger, guard: Guard::Open, decoder: Decoder::for_tests(), inbox })
    }

    #[test]
    fn the_most_exact_host_and_the_longest_path_win_at_the_borders_of_segments() {
        let mut ways = Ways::default();
        let list = [
            ("any", "", "/"),
            ("orders", "shop.example.com", "/orders/"),
            ("open", "shop.example.com", "/orders/open"),
            ("wild", "*.example.com", "/"),
        ];
        for (trigger, host, path) in list {
            ways = ways.with(way(trigger, host, path)).expect("nobody else has it");
        }
        let found = |host, path| ways.find(host, path).map(|(way, rest)| (way.trigger.clone(), rest));
        let some = |trigger: &str, rest| Some((trigger.to_owned(), rest));
        assert_eq!(found("Shop.example.com", "/orders"), some("orders", "/"));
        assert_eq!(found("shop.example.com", "/orders/42"), some("orders", "/42"));
        assert_eq!(found("shop.example.com", "/orders/open/1"), some("open", "/1"));
        assert_eq!(found("shop.example.com", "/ordersx"), some("wild", "/ordersx"));
        assert_eq!(found("a.b.example.com", "/x"), some("any", "/x"), "one label, no more");
        assert_eq!(host_of("[::1]:80"), "::1");
        assert_eq!(host_of("a.b:80"), "a.b");
        assert_eq!(Ways::default().find("a", "/").map(|_| ()), None);
    }

    #[test]
    fn a_way_has_one_trigger_and_is_remembered_while_it_restarts() {
        let first = way("shop/a", "h", "/x");
        let ways = Ways::default().with(Arc::clone(&first)).expect("free");
        assert_eq!(ways.with(way("shop/b", "H", "/x/")).err().as_deref(), Some("shop/a"));
        let left = ways.without(&first);
        assert!(left.find("h", "/x").is_some(), "503, not 404");
        let next = left.with(way("shop/b", "h", "/x")).expect("it is free now");
        assert_eq!(next.find("h", "/x").expect("found").0.trigger, "shop/b");
    }
}

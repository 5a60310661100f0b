//! Where plug-ins push: from a request to the trigger that its path names, its token, its events to every function of the trigger,
//! and back with the answer. Must never read a body before the token is known, nor leave out a function of the trigger.

use super::{
    answer::{Line, Part, told},
    decode::{self, Decoded, TooMany},
    options::Options,
};
use crate::{
    clock,
    cluster::target::{ObjectRef, TriggerRef},
    dispatch::{Router, store::Digest},
    event::{
        Event,
        message::{Limits, Rejection},
    },
    sources::push::{
        binding::MAX_HEADERS,
        front::{Handler, Unread, read},
        guard::Guard,
        offer::{Arrival, Ask, Body, Numbers, Reply},
        problem::{Told, problem},
    },
};
use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header::ALLOW};
use hyper::body::Incoming;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// What paths begin with.
const ROOT: &str = "/events/";

/// A subscription's way to its thread.
#[derive(Debug)]
pub struct Way {
    /// The function.
    pub function: ObjectRef,
    /// Places of events.
    pub numbers: Arc<Numbers>,
    /// To the thread.
    pub inbox: mpsc::Sender<Arrival>,
}

/// What is open for one trigger.
#[derive(Clone)]
struct Place {
    trigger: TriggerRef,
    router: Router,
    guard: Guard,
    ways: HashMap<ObjectRef, Arc<Way>>,
}

/// See the module.
pub struct Desk {
    places: ArcSwap<HashMap<ObjectRef, Place>>,
    publishing: Mutex<()>,
    limits: Limits,
    max_batch: usize,
    max_at_once: usize,
    read_timeout: Duration,
}

/// Where events of a trigger are pushed to.
pub fn path_of(trigger: &ObjectRef) -> String {
    format!("{ROOT}{}/{}", trigger.namespace, trigger.name)
}

impl Desk {
    /// Nothing is open yet.
    pub fn new(options: &Options) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            places: ArcSwap::default(),
            publishing: Mutex::default(),
            limits: Limits {
                max_body_bytes: size(options.max_body_bytes),
                max_headers: MAX_HEADERS,
                max_header_bytes: size(options.max_header_bytes),
            },
            max_batch: options.max_batch,
            max_at_once: options.max_at_once,
            read_timeout: options.read_timeout,
        }
    }

    /// Opens a way for whom `guard` lets in.
    pub fn enter(&self, trigger: TriggerRef, way: Arc<Way>, guard: Guard, router: Router) {
        self.change(|places| {
            let name = trigger.object.clone();
            let ways = HashMap::new();
            let new = Place { trigger, router, guard: guard.clone(), ways };
            let place = places.entry(name).or_insert(new);
            place.guard = guard;
            place.ways.insert(way.function.clone(), way);
        });
    }

    /// The way's thread is gone.
    pub fn leave(&self, trigger: &ObjectRef, way: &Arc<Way>) {
        self.change(|places| {
            let Some(place) = places.get_mut(trigger) else { return };
            place.ways.retain(|_, held| !Arc::ptr_eq(held, way));
            if place.ways.is_empty() {
                places.remove(trigger);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<ObjectRef, Place>)) {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::clone(&self.places.load());
        change(&mut next);
        self.places.store(Arc::new(next));
    }

    async fn take(&self, request: Request<Incoming>) -> Told {
        let (head, body) = request.into_parts();
        let name = head.uri.path().strip_prefix(ROOT).and_then(|path| path.split_once('/'));
        let places = self.places.load_full();
        let Some(place) = name.and_then(|(space, name)| places.get(&ObjectRef::new(space, name))) else {
            let why =
                "no CustomTrigger of this namespace and name is served here now, or it selects no function";
            return problem(StatusCode::NOT_FOUND, why);
        };
        if !place.guard.admits(&head.headers) {
            return place.guard.refusal();
        }
        if head.method != Method::POST {
            let mut told = problem(StatusCode::METHOD_NOT_ALLOWED, "events are POSTed");
            told.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return told;
        }
        let body = match read(body, self.limits.max_body_bytes, self.read_timeout).await {
            Ok(body) => body,
            Err(Unread::TooLarge) => return self.too_large(place).await,
            Err(other) => return other.told(),
        };
        let events =
            match decode::events((&self.limits, self.max_batch), &head.headers, &body, clock::unix_ms()) {
                Ok(events) => events,
                Err(TooMany) => {
                    let why =
                        format!("a batch has {} events at most; none of these was taken", self.max_batch);
                    return problem(StatusCode::PAYLOAD_TOO_LARGE, &why);
                }
            };
        let early = wants_early(&head.headers);
        told(&self.offer(place, events, early).await, early)
    }

    /// It has an outcome all the same: a body that is never taken would stop its plug-in for good.
    async fn too_large(&self, place: &Place) -> Told {
        self.offer(place, vec![Err(Rejection::BODY_TOO_LARGE)], false).await;
        Unread::TooLarge.told()
    }

    /// Every event to every function that the trigger is for now, in order.
    async fn offer(&self, place: &Place, events: Vec<Result<Decoded, Rejection>>, early: bool) -> Vec<Line> {
        let routes = place.router.subscriptions(&place.trigger);
        let functions: Vec<ObjectRef> = routes.iter().map(|route| route.key.function.clone()).collect();
        if functions.is_empty() {
            let parts = || vec![Part::later("", "the trigger selects no function now")];
            return events.iter().map(|event| Line::new(event, parts())).collect();
        }
        let mut offers = Vec::with_capacity(events.len() * functions.len());
        for event in &events {
            for function in &functions {
                let way = place.ways.get(function);
                let offer = way.map(|way| (way.inbox.clone(), way.body(event)));
                offers.push(one(Arc::clone(&function.name), offer, early));
            }
        }
        let parts: Vec<Part> = stream::iter(offers).buffered(self.max_at_once).collect().await;
        let lines = events.iter().zip(parts.chunks(functions.len()));
        lines.map(|(event, parts)| Line::new(event, parts.to_vec())).collect()
    }
}

impl Handler for Desk {
    fn answer(self: Arc<Self>, request: Request<Incoming>, _peer: SocketAddr) -> BoxFuture<'static, Told> {
        Box::pin(async move { self.take(request).await })
    }
}

/// Whether the answer is wanted as soon as all is claimed (RFC 7240).
fn wants_early(headers: &HeaderMap) -> bool {
    let lists = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
}

/// One event to one function, by the way to its thread.
async fn one(name: Arc<str>, offer: Option<(mpsc::Sender<Arrival>, Body)>, early: bool) -> Part {
    let Some((inbox, body)) = offer else {
        return Part::later(&name, "this function's subscription is starting or in trouble");
    };
    let (reply, mut claimed, mut verdict) = Reply::early();
    if inbox.send(Arrival { body, reply }).await.is_err() {
        return Part::later(&name, "this function's subscription is being restarted");
    }
    tokio::select! {
        biased;
        verdict = &mut verdict => match verdict {
            Ok(verdict) => Part::of(&name, verdict),
            Err(_) => Part::silent(&name),
        },
        Ok(()) = &mut claimed, if early => Part::claimed(&name),
    }
}

impl Way {
    fn body(&self, event: &Result<Decoded, Rejection>) -> Body {
        let now_ms = clock::unix_ms();
        let position = self.numbers.next_position(now_ms);
        let decoded = match event {
            Ok(decoded) => decoded.clone(),
            Err(rejection) => return Body::Rejected(position, *rejection),
        };
        let (uid, function) = (self.numbers.uid.as_bytes(), self.function.name.as_bytes());
        let (source, id) = (decoded.attributes.source.as_bytes(), decoded.attributes.id.as_bytes());
        let number = u64::try_from(position.sequence).unwrap_or(0);
        let event = Event {
            position,
            business: None,
            lane: None,
            attributes: decoded.attributes.clone(),
            content_type: decoded.content_type,
            headers: decoded.headers,
            data: decoded.data,
            weight: decoded.weight,
            exchange: None,
        };
        Body::Ask(Ask {
            key: Digest::of(&[uid, function, b"event", source, id]),
            // The name is all that counts: a plug-in may write the same event in other words.
            content: Digest::of(&[]),
            event: Arc::new(event),
            named: true,
            number,
        })
    }
}

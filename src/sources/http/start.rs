//! From a trigger and a route to an open way and a running thread. Must never open a way that another trigger has.

use super::{
    arrival::{Decoder, limits},
    door::Door,
    options::{Options, size},
    ways::{Way, tidy},
};
use crate::{
    api::{conditions::Fact, http_trigger::HTTPTrigger, kind::TriggerObject},
    cluster::secrets::SecretData,
    dispatch::Route,
    sources::{
        Environment, Error, Running, Source,
        push::{
            front::Front,
            guard::Guard,
            offer::Numbers,
            start::{INBOX, Opening},
            stores::Stores,
        },
    },
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// The emitter that functions see.
const EMITTER: &str = "httptriggers.kubeless.io";
/// The source with its configuration.
pub struct HttpSource {
    options: Options,
    door: Arc<Door>,
    /// Opened with the first trigger, closed with the process: an edit must not close the door.
    front: Mutex<Option<Front>>,
    stores: Stores,
}

impl HttpSource {
    /// A source that takes no requests yet. `dir`: where logs of claims are; `replicated`: whether other dispatchers may serve
    /// the same triggers.
    pub fn new(options: Options, dir: PathBuf, replicated: bool) -> Self {
        let stores = Stores::new(options.store.clone(), "http", dir, replicated)
            .with_credentials(options.store_credentials.clone());
        Self {
            door: Arc::new(Door::new(options.read_timeout)),
            front: Mutex::default(),
            stores: stores.keeping(size(options.kept_answers_bytes)),
            options,
        }
    }

    /// Where requests are taken, once a trigger is served.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Front::address)
    }

    fn guard(&self, trigger: &HTTPTrigger, secret: Option<&SecretData>) -> Result<Guard, Error> {
        let Some(auth) = &trigger.spec.auth else { return Ok(Guard::Open) };
        let dir = &self.options.credentials_dir;
        match &auth.signature_header {
            None => Guard::tokens(&auth.secret, secret, dir),
            Some(name) => {
                let header =
                    name.parse().map_err(|_| format!("spec.auth.signatureHeader: {name:?} is no header"))?;
                Guard::signed(header, &auth.secret, secret, dir)
            }
        }
    }

    fn listen(&self) -> Result<(), Error> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if front.is_some() {
            return Ok(());
        }
        let listen = self.options.listen;
        let open = Front::open(self.options.limits(), Arc::clone(&self.door) as _);
        let open =
            open.map_err(|error| format!("cannot listen on {listen} (sources.http.listen): {error}"))?;
        tracing::info!(address = %open.address(), "HTTP requests are taken");
        *front = Some(open);
        Ok(())
    }
}

impl Source for HttpSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<HTTPTrigger>() else { return String::new() };
        let core = &trigger.core;
        let spec = &typed.spec;
        format!("{:?}", ((&spec.host_name, &spec.path, &spec.auth), (&core.dedup, &core.uid)))
    }

    fn credentials(&self, trigger: &TriggerObject) -> Option<String> {
        Some(trigger.downcast::<HTTPTrigger>()?.spec.auth.as_ref()?.secret.clone())
    }

    fn promise(&self, _trigger: &TriggerObject) -> Fact {
        self.stores.promise()
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<HTTPTrigger>().ok_or("not an HTTPTrigger")?;
        let guard = self.guard(&typed, environment.secret.as_deref())?;
        let store = self.stores.of(trigger, route)?;
        self.listen()?;
        let reference = &trigger.core.reference;
        let numbers = Arc::new(Numbers::new(Arc::clone(&trigger.core.uid), fastrand::u64(1..)));
        let (sender, inbox) = mpsc::channel(INBOX);
        let way = Arc::new(Way {
            host: typed.spec.host_name.clone(),
            path: tidy(&typed.path()),
            trigger: reference.to_string(),
            guard,
            decoder: Decoder {
                numbers: Arc::clone(&numbers),
                function: Arc::clone(&route.key.function.name),
                source: format!(
                    "/apis/kubeless.io/v1beta1/namespaces/{}/httptriggers/{}",
                    reference.namespace, reference.name
                )
                .into(),
                dedup: trigger.core.dedup.enabled,
                dedup_key: trigger.core.dedup.key.clone(),
                limits: limits(&self.options),
                max_answer_bytes: size(self.options.max_answer_bytes),
            },
            inbox: sender,
        });
        let shown = format!("{}{}", typed.spec.host_name, way.path);
        self.door
            .enter(Arc::clone(&way))
            .map_err(|other| format!("{shown} is served for HTTPTrigger {other}"))?;
        let (door, holding) = (Arc::clone(&self.door), self.options.holding());
        let close = Box::new(move || door.leave(&way));
        let (source, emitter) = ("http", EMITTER);
        Opening { source, emitter, trigger, route, holding, store, numbers, inbox, close }.run(environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::http_trigger,
        cluster::target::{ObjectRef, Protocol, Target},
        dispatch::{
            Router, SubscriptionKey, Workers,
            store::{Bounds, Claim, ClaimStore, Durability, How, Refusal, Reply},
        },
        invoker::InvokerConfig,
        ledger::journal::{Journal, JournalConfig},
        router::RouterOptions,
        sources::Order,
    };
    use futures_util::future::{BoxFuture, ready};
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
        sync::mpsc,
        time::{Duration, Instant},
    };

    /// Answers every claim alike, and remembers what was freed.
    struct Deaf {
        reply: Reply,
        freed: Mutex<mpsc::Sender<Claim>>,
    }

    impl ClaimStore for Deaf {
        fn claim(&self, _claim: Claim) -> BoxFuture<'_, Reply> {
            Box::pin(ready(self.reply.clone()))
        }

        fn end(&self, claim: &Claim, how: How) -> BoxFuture<'_, Result<(), String>> {
            assert_eq!(how, How::Freed, "nothing was called");
            let sent = self.freed.lock().expect("no panic inside").send(claim.clone());
            Box::pin(ready(sent.map_err(|error| error.to_string())))
        }

        fn inherit(&self, _by: u64, _until_ms: i64) -> BoxFuture<'_, Result<Vec<Claim>, String>> {
            Box::pin(ready(Ok(Vec::new())))
        }

        fn bound(&self, _bounds: Bounds) {}

        fn durability(&self) -> Durability {
            Durability::Shared
        }

        fn len(&self) -> Option<usize> {
            None
        }
    }

    fn trigger() -> TriggerObject {
        let object = serde_json::json!({
            "apiVersion": "kubeless.io/v1beta1", "kind": "HTTPTrigger",
            "metadata": {"name": "door", "namespace": "shop"},
            "spec": {"function-name": "f", "path": "/orders", "delivery": {"through": "Dispatcher"}},
        });
        http_trigger::decode(object).expect("a sound trigger")
    }

    fn route(trigger: &TriggerObject, endpoint: SocketAddr) -> Route {
        let function = ObjectRef::new("shop", "f");
        let target = Target {
            function: function.clone(),
            endpoints: Arc::new([endpoint]),
            near: 0,
            protocol: Protocol::Http1,
            authority: "f.shop".into(),
            call_timeout: Duration::from_secs(5),
            max_in_flight: 4,
        };
        Route {
            key: SubscriptionKey { trigger: trigger.core.key(), function },
            trigger: Arc::clone(&trigger.core),
            target: Arc::new(arc_swap::ArcSwap::from_pointee(target)),
        }
    }

    fn environment(dir: &std::path::Path) -> Environment {
        let journal = JournalConfig { max_bytes: 64 << 20, segment_bytes: 8 << 20 };
        Environment {
            journal: Arc::new(Journal::open(dir, journal).expect("a journal")),
            workers: Arc::new(Workers::start(1, &InvokerConfig::default()).expect("a worker")),
            permits: Arc::new(tokio::sync::Semaphore::new(4)),
            memory: Arc::default(),
            timeout_margin: Duration::ZERO,
            secret: None,
            router: Router::new(RouterOptions::default()).1,
            cluster: None,
        }
    }

    fn ask(to: SocketAddr) -> String {
        let mut stream = TcpStream::connect(to).expect("it listens");
        let head = "POST /orders HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.to_ascii_lowercase()
    }

    #[test]
    fn a_store_that_is_away_or_does_not_know_means_503_and_no_call() {
        let replies = [
            (Reply::Refused(Refusal::Away("gone".to_owned())), 0),
            (Reply::Unknown("lost".to_owned()), 1),
            (Reply::Refused(Refusal::Full(Duration::from_secs(7))), 0),
        ];
        for (reply, expected_free) in replies {
            let dir = tempfile::tempdir().expect("a folder");
            let function = TcpListener::bind("127.0.0.1:0").expect("a port");
            function.set_nonblocking(true).expect("it is a socket");
            let options = Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Options::default() };
            let source = HttpSource::new(options, dir.path().join("http"), false);
            let trigger = trigger();
            let route = route(&trigger, function.local_addr().expect("bound"));
            let (freed, frees) = mpsc::channel();
            let store = Arc::new(Deaf { reply: reply.clone(), freed: Mutex::new(freed) });
            source.stores.set(&trigger, &route, store);
            let running = source.start(&trigger, &route, &environment(dir.path())).expect("it starts");
            let answer = ask(source.address().expect("it listens"));
            assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: "), "{answer}");
            for _ in 0..expected_free {
                frees.recv_timeout(Duration::from_secs(60)).expect("the claim may stand: it is freed");
            }
            running.orders.send(Order::Stop(Instant::now() + Duration::from_secs(60))).expect("it runs");
            running.thread.join().expect("no panic");
            let called = function.accept().map(|_| ()).map_err(|error| error.kind());
            assert_eq!(called, Err(ErrorKind::WouldBlock), "{reply:?}");
            let conservation = running.subscription.conservation();
            let counts = (conservation.residual(), conservation.outcome(crate::ledger::Outcome::Rejected));
            assert_eq!(counts, (0, 1), "{reply:?}");
        }
    }
}

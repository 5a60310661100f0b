//! Which optional kinds this cluster knows (ServiceMonitor, HTTPRoute, Middleware). Must never ask more than once a minute:
//! every pass wants to know.

use kube::Client;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{desired::Kind, error::Error};

/// How long an answer counts: whoever installs a definition waits so long for it to be used.
const FRESH: Duration = Duration::from_secs(60);

/// What discovery said.
pub struct Served {
    client: Client,
    known: Mutex<BTreeMap<Kind, (Instant, bool)>>,
}

impl Served {
    /// Knows nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// Whether the cluster has the kind.
    ///
    /// # Errors
    /// What the API server says, unless it is that there is no such group.
    pub async fn has(&self, kind: Kind) -> Result<bool, Error> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).copied();
        if let Some((_, answer)) = known.filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(answer);
        }
        let answer = self.ask(kind).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(kind, (Instant::now(), answer));
        Ok(answer)
    }

    /// As [`Self::has`], by an answer that is neither kept nor was: for who asks seldom.
    ///
    /// # Errors
    /// As [`Self::has`].
    pub async fn ask(&self, kind: Kind) -> Result<bool, Error> {
        let (group, version, name, plural) = kind.names();
        match self.client.list_api_group_resources(&format!("{group}/{version}")).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(Error::api(format!("ask whether there are {name}s"))(error)),
        }
    }

    /// As [`Self::has`], but a kind that is missing is an error.
    ///
    /// # Errors
    /// [`Error::NotServed`], or what the API server says.
    pub async fn must_have(&self, kind: Kind) -> Result<(), Error> {
        if self.has(kind).await? {
            return Ok(());
        }
        let (group, version, name, _) = kind.names();
        Err(Error::NotServed { kind: name, group: format!("{group}/{version}") })
    }
}

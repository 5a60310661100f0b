//! What can go wrong in one pass over one object. Must never end a controller: every error is shown in a condition and
//! tried again, or waits for the object to change.

use crate::{
    api::{Violation, conditions::reasons},
    cluster::client::explain,
};

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{what}: {}", explain(source))]
    Api {
        /// What was attempted, for example `apply Deployment default/hello`.
        what: String,
        /// Its answer.
        source: kube::Error,
    },
    /// An object of that name belongs to somebody else.
    #[error(
        "{kind} {name} exists and is not ours (no label created-by: kubeless, or another owner); delete or rename it"
    )]
    Conflict {
        /// Its kind.
        kind: &'static str,
        /// Namespace and name.
        name: String,
    },
    /// An object of that name is on its way out.
    #[error("{kind} {name} of an earlier owner is being removed first")]
    Leaving {
        /// Its kind.
        kind: &'static str,
        /// Namespace and name.
        name: String,
    },
    /// The cluster does not know the kind.
    #[error("this cluster has no {kind} ({group}); install its definitions, or ask for something else")]
    NotServed {
        /// The kind.
        kind: &'static str,
        /// Its group and version.
        group: String,
    },
    /// What the cluster holds is not known yet; acting on half of it could remove what is needed.
    #[error("still reading {0}")]
    NotRead(&'static str),
    /// The object itself is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// The configuration is wrong.
    #[error("the configuration cannot be read: {0}")]
    Config(String),
}

impl Error {
    /// An answer of the API server to `what`.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    /// The reason for conditions and Events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } if status.code == 422 => reasons::INVALID,
            Self::Api { .. } | Self::Leaving { .. } | Self::NotServed { .. } | Self::NotRead(_) => {
                reasons::API_ERROR
            }
            Self::Conflict { .. } => reasons::CONFLICT,
            Self::Invalid(_) => reasons::INVALID,
            Self::Config(_) => reasons::CONFIG_INVALID,
        }
    }

    /// Whether another pass over the same object can succeed. What an operator or user must change first is looked at
    /// again when it changes, and at every resync.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Invalid(_) | Self::Config(_))
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

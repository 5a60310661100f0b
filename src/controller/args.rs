//! The flags of the controller. Must never hold what belongs into the ConfigMap: that is watched, flags are not.

use clap::{Args, ValueEnum};
use std::{net::SocketAddr, time::Duration};

use super::{
    context::Choices,
    desired::{exposure::Gateways, security::Floor},
};
use crate::{
    cluster::{client::Connect, lease::DEFAULT_DURATION},
    telemetry::{LogFormat, LogOptions},
};

/// Image with these programs when nothing else is said.
pub const DEFAULT_IMAGE: &str = concat!("kubeless/kubeless:", env!("CARGO_PKG_VERSION"));

/// What one process may do; as in Kubeless they can run in Deployments of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Functions, and Kubeless's finalizers of the triggers that the dispatcher alone acts on.
    Function,
    /// HTTPTriggers.
    Http,
    /// CronJobTriggers.
    Cronjob,
}

impl Role {
    /// The word of the flag.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Http => "http",
            Self::Cronjob => "cronjob",
        }
    }
}

/// Flags.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Which resources this process brings about.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        env = "KUBELESS_CONTROLLERS",
        default_value = "function,http,cronjob"
    )]
    pub controllers: Vec<Role>,
    /// Namespace of this installation: its ConfigMap and its Lease. Default: what the CRD's annotation
    /// kubeless.io/namespace says, else kubeless.
    #[arg(long, value_name = "NAME", env = "KUBELESS_NAMESPACE")]
    pub namespace: Option<String>,
    /// ConfigMap with the configuration. Default: what the CRD's annotation kubeless.io/config says, else kubeless-config.
    #[arg(long, value_name = "NAME", env = "KUBELESS_CONFIG")]
    pub config_map: Option<String>,
    /// The one namespace that is watched. Default: what the ConfigMap's functions-namespace says, else all.
    #[arg(long, value_name = "NAME", env = "KUBELESS_FUNCTIONS_NAMESPACE")]
    pub functions_namespace: Option<String>,
    /// Image that holds this program, for the Pods that prepare functions and call them by the clock.
    #[arg(long, value_name = "IMAGE", env = "KUBELESS_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,
    /// How far a function's Deployment template may go: baseline refuses what reaches the node.
    #[arg(long, value_enum, env = "KUBELESS_POD_SECURITY", default_value = "baseline")]
    pub pod_security: Floor,
    /// IngressClass of HTTP triggers that name neither class nor gateway. Default: the cluster's default class.
    #[arg(long, value_name = "NAME", env = "KUBELESS_INGRESS_CLASS")]
    pub ingress_class: Option<String>,
    /// Gateway (Gateway API) of HTTP triggers with gateway: gateway-api.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "KUBELESS_GATEWAY")]
    pub gateway: Option<String>,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", env = "KUBELESS_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Whether several replicas agree on one that acts.
    #[arg(long, value_name = "BOOL", env = "KUBELESS_LEADER_ELECT", default_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Lease that they agree by. Default: kubeless-controller, with the controllers' names unless it is all of them.
    #[arg(long, value_name = "NAME", env = "KUBELESS_LEASE")]
    pub lease: Option<String>,
    /// Seconds after which another replica takes over from one that is silent.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_DURATION.as_secs(), value_parser = clap::value_parser!(u64).range(3..=120))]
    pub lease_seconds: u64,
    /// Objects of one kind that are worked on at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, value_name = "ADDR", env = "KUBELESS_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// The cluster.
    #[command(flatten)]
    pub connect: Connect,
    /// Shape of log lines: auto (text on a terminal, else JSON), json or text.
    #[arg(long, value_name = "FORMAT", env = "KUBELESS_LOG_FORMAT", default_value = "auto")]
    pub log_format: String,
    /// Log filter, as in info or info,kubeless::controller=debug. Also KUBELESS_LOG, RUST_LOG.
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

impl ControllerArgs {
    /// What to do about logs.
    ///
    /// # Errors
    /// An unknown format.
    pub fn log_options(&self) -> Result<LogOptions, String> {
        let format: LogFormat = self.log_format.parse()?;
        Ok(LogOptions { format, filter: self.log_level.clone() })
    }

    /// The operator's choices, for an installation in the namespace `home`.
    pub fn choices(&self, home: &str) -> Choices {
        Choices {
            image: self.image.clone(),
            floor: self.pod_security,
            gateways: Gateways {
                ingress_class: self.ingress_class.clone(),
                parent: self.gateway.clone(),
                home: home.to_owned(),
            },
            cluster_domain: self.cluster_domain.clone(),
        }
    }

    /// The roles, each once.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = self.controllers.clone();
        roles.sort_unstable();
        roles.dedup();
        roles
    }

    /// Name of the Lease: processes that do the same agree with each other, others do not wait for them.
    pub fn lease_name(&self) -> String {
        const BASE: &str = "kubeless-controller";
        let roles = self.roles();
        self.lease.clone().unwrap_or_else(|| match roles.len() {
            3 => BASE.to_owned(),
            _ => format!("{BASE}-{}", roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join("-")),
        })
    }

    /// How long a silent leader stays one.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

//! What the user of a session may do, asked of the API server. Must never try it out instead.

use crate::cli::session::Session;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

/// One permission.
#[derive(Clone, Copy, Debug)]
pub struct Permission<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource, or nothing.
    pub subresource: &'a str,
    /// Namespace; empty is everywhere.
    pub namespace: &'a str,
}

/// Whether it is granted.
pub async fn may(session: &Session, permission: &Permission<'_>) -> kube::Result<bool> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: text(permission.verb),
                group: Some(permission.group.to_owned()),
                resource: text(permission.resource),
                subresource: text(permission.subresource),
                namespace: text(permission.namespace),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(session.connection.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

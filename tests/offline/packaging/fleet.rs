//! The manifest of a fleet: its relays share what its settings say, within its limits.

use std::fs;

use bytesize::ByteSize;
use factlib::{binary::Loader, config::Config};
use serde_json::Value;

use super::image;
use crate::support::repository::yaml;

fn kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).expect(kind)
}

/// What a relay makes of its environment, in the pod of that name.
fn config(container: &Value, pod: &str) -> Config {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("postgres-url");
    fs::write(&secret, "postgresql://factlib_relay:secret@db/shop").expect("a secret");
    let mut all = image::environment();
    for variable in container["env"].as_array().expect("a list") {
        let name = variable["name"].as_str().expect("a name");
        let value = match (name, variable["value"].as_str()) {
            ("FACTLIB_POSTGRES__URL_FILE", Some(path)) => {
                assert_eq!(path, "/etc/factlib/secrets/postgres-url");
                secret.to_str().expect("UTF-8")
            }
            (_, Some(value)) => value,
            (_, None) => {
                assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
                pod
            }
        };
        all.insert(name.to_owned(), value.to_owned());
    }
    Loader::new(folder.path()).env(all).load().expect("a valid configuration").config
}

/// A quantity of bytes, which Kubernetes writes without the `B`.
fn bytes(quantity: &Value) -> u64 {
    let text = format!("{}B", quantity.as_str().expect("a quantity"));
    text.parse::<ByteSize>().expect("bytes").as_u64()
}

#[test]
fn its_relays_share_the_pipelines_within_their_limits() {
    let documents = yaml("packaging/kubernetes-fleet.yaml");
    let deployment = &kind(&documents, "Deployment")["spec"];
    let container = &deployment["template"]["spec"]["containers"][0];
    let config = config(container, "factlib-fleet-7d4b9-x2x4v");
    assert_eq!(config.fleet.instance.as_deref(), Some("factlib-fleet-7d4b9-x2x4v"));
    assert!(config.fleet.group.is_some() && !config.fleet.databases.is_empty());

    // While one is away, the others have room for as many as the manifest says.
    let replicas = deployment["replicas"].as_u64().expect("a number");
    let pipelines = config.fleet.max_pipelines as u64;
    assert_eq!((replicas - 1) * pipelines, 200);
    let (windows, resources) =
        (pipelines * config.pipeline.window.as_u64(), &container["resources"]);
    let limit = bytes(&resources["limits"]["memory"]);
    assert!(limit > 2 * windows, "{limit} for windows of {windows}");
    assert!(bytes(&resources["requests"]["memory"]) < limit);
}

#[test]
fn one_relay_at_a_time_is_away() {
    let documents = yaml("packaging/kubernetes-fleet.yaml");
    let deployment = &kind(&documents, "Deployment")["spec"];
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let budget = &kind(&documents, "PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    let pod = &deployment["template"];
    assert_eq!(budget["selector"]["matchLabels"], pod["metadata"]["labels"]);
    let spread = &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"];
    assert_eq!(spread, &pod["metadata"]["labels"]);
}

#[test]
fn its_pods_are_as_safe_as_that_of_one_relay() {
    let (fleet, one) = (yaml("packaging/kubernetes-fleet.yaml"), yaml("packaging/kubernetes.yaml"));
    let pod = |documents| kind(documents, "Deployment")["spec"]["template"]["spec"].clone();
    let (fleet, one) = (pod(&fleet), pod(&one));
    for name in ["automountServiceAccountToken", "enableServiceLinks", "securityContext", "volumes"]
    {
        assert_eq!(fleet[name], one[name], "{name}");
    }
    let (fleet, one) = (&fleet["containers"][0], &one["containers"][0]);
    for name in ["args", "image", "livenessProbe", "ports", "securityContext", "volumeMounts"] {
        assert_eq!(fleet[name], one[name], "{name}");
    }
}

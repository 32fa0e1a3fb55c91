//! A case in Pacemaker's words, and its answer in ours.

use std::fmt::Write;

use super::Places;
use super::case::{Case, Group};
use super::reason::{Reason, has_exceptions, told};

/// Failures after which Pacemaker leaves a machine.
const THRESHOLD: u32 = 3;
/// An identifier where Pacemaker's history demands one.
const TRANSITION: &str = "1:0:0:00000000-0000-0000-0000-000000000000";

/// The cluster's state and configuration as Pacemaker keeps it.
pub fn cib(case: &Case, reasons: &[Reason]) -> String {
    let mut xml = String::from(
        r#"<cib crm_feature_set="3.16.2" validate-with="none" admin_epoch="0" epoch="1" num_updates="0" have-quorum="1"><configuration>"#,
    );
    let options = [
        ("stonith-enabled", "false".to_owned()),
        ("symmetric-cluster", "false".to_owned()),
        ("maintenance-mode", case.maintenance.to_string()),
    ];
    let options = pairs("options", &options);
    // Writing to a string cannot fail.
    let _ =
        write!(xml, r#"<crm_config><cluster_property_set id="options">{options}</cluster_property_set></crm_config>"#);
    let _ = write!(xml, "<nodes>{}</nodes>", each(0..case.machines.len(), |machine| node(case, *machine, reasons)));
    let groups = case.groups.iter().enumerate();
    let _ = write!(
        xml,
        "<resources>{}</resources>",
        each(groups.clone(), |(id, group)| resource(case, *id, group, reasons))
    );
    let _ =
        write!(xml, "<constraints>{}</constraints>", each(groups, |(id, group)| locations(case, *id, group, reasons)));
    let states = each(0..case.machines.len(), |machine| node_state(case, *machine, reasons));
    let _ = write!(xml, "</configuration><status>{states}</status></cib>");
    xml
}

fn each<T>(of: impl Iterator<Item = T>, text: impl Fn(&T) -> String) -> String {
    of.map(|one| text(&one)).collect()
}

fn pairs(id: &str, values: &[(&str, String)]) -> String {
    each(values.iter(), |(name, value)| format!(r#"<nvpair id="{id}-{name}" name="{name}" value="{value}"/>"#))
}

fn node(case: &Case, machine: usize, reasons: &[Reason]) -> String {
    let standby = case.machines[machine].standby && !has_exceptions(reasons);
    let values = pairs(&format!("n{machine}"), &[("standby", standby.to_string())]);
    format!(
        r#"<node id="{machine}" uname="n{machine}"><instance_attributes id="n{machine}-a">{values}</instance_attributes></node>"#
    )
}

fn resource(case: &Case, id: usize, group: &Group, reasons: &[Reason]) -> String {
    let stickiness = told(case, group, reasons).stickiness.to_string();
    let values = [("resource-stickiness", stickiness), ("migration-threshold", THRESHOLD.to_string())];
    let values = pairs(&format!("g{id}"), &values);
    format!(
        r#"<primitive id="g{id}" class="ocf" provider="pacemaker" type="Dummy"><meta_attributes id="g{id}-m">{values}</meta_attributes></primitive>"#
    )
}

fn locations(case: &Case, id: usize, group: &Group, reasons: &[Reason]) -> String {
    let told = told(case, group, reasons);
    let location = |machine: usize, why: &str, score: &str| {
        format!(r#"<rsc_location id="g{id}-n{machine}-{why}" rsc="g{id}" node="n{machine}" score="{score}"/>"#)
    };
    let mut xml = String::new();
    for (rank, machine) in group.order.iter().copied().enumerate() {
        xml += &location(machine, "prefers", &(100 - 10 * rank).to_string());
        if told.banned.contains(&machine) {
            xml += &location(machine, "may-not", "-INFINITY");
        }
        if told.wanted == Some(machine) {
            xml += &location(machine, "moved", "INFINITY");
        }
    }
    xml
}

fn node_state(case: &Case, machine: usize, reasons: &[Reason]) -> String {
    let names = format!(r#"id="{machine}" uname="n{machine}""#);
    if !case.is_up(machine) {
        return format!(r#"<node_state {names} in_ccm="false" crmd="offline" join="down" expected="down"/>"#);
    }
    let groups = || case.groups.iter().map(|group| told(case, group, reasons)).enumerate();
    let runs = each(groups().filter(|(_, told)| told.runs == Some(machine)), |(id, _)| history(*id));
    let failures = each(groups().filter(|(_, told)| told.failed.contains(&machine)), |(id, _)| {
        let name = format!("fail-count-g{id}#monitor_10000");
        format!(r#"<nvpair id="n{machine}-f{id}" name="{name}" value="{THRESHOLD}"/>"#)
    });
    format!(
        r#"<node_state {names} in_ccm="true" crmd="online" join="member" expected="member"><lrm id="{machine}"><lrm_resources>{runs}</lrm_resources></lrm><transient_attributes id="{machine}"><instance_attributes id="n{machine}-t">{failures}</instance_attributes></transient_attributes></node_state>"#
    )
}

/// That a resource was started on a machine and runs there.
fn history(id: usize) -> String {
    format!(
        r#"<lrm_resource id="g{id}" type="Dummy" class="ocf" provider="pacemaker"><lrm_rsc_op id="g{id}_last_0" operation_key="g{id}_start_0" operation="start" crm_feature_set="3.16.2" transition-key="{TRANSITION}" transition-magic="0:0;{TRANSITION}" call-id="1" rc-code="0" op-status="0" interval="0"/></lrm_resource>"#
    )
}

/// Where each group runs in the translation, before Pacemaker does anything.
pub fn begins(case: &Case, reasons: &[Reason]) -> Places {
    case.groups.iter().map(|group| told(case, group, reasons).runs).collect()
}

/// Where the groups end up: where they began, but for what Pacemaker says it would do. `None` when
/// that is not understood.
pub fn places(answer: &str, begins: Places) -> Option<Places> {
    let mut places = begins;
    answer.contains(r#"<status code="0""#).then_some(())?;
    for line in answer.lines().map(str::trim_start).filter(|line| line.starts_with("<rsc_action ")) {
        let resource: usize = value(line, "resource")?.strip_prefix('g')?.parse().ok()?;
        let place = places.get_mut(resource)?;
        *place = match value(line, "action")? {
            "start" => Some(machine(value(line, "node")?)?),
            "move" | "migrate" => Some(machine(value(line, "dest")?)?),
            "stop" => None,
            // It knows no parameters of the start that it is told of: where it runs is all that counts.
            "restart" => *place,
            _ => return None,
        };
    }
    Some(places)
}

fn machine(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

/// The value of an attribute of an XML element.
fn value<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pacemaker_would_do_is_read() {
        let answer = r#"<pacemaker-result>
    <rsc_action action="start" resource="g0" node="n1"/>
    <rsc_action action="move" resource="g1" source="n0" dest="n2"/>
    <rsc_action action="stop" resource="g2" node="n0" reason="node availability"/>
  <status code="0" message="OK"/>"#;
        let begins = vec![None, Some(0), Some(0), Some(3)];
        assert_eq!(places(answer, begins.clone()), Some(vec![Some(1), Some(2), None, Some(3)]));
        assert_eq!(places(&answer.replace("move", "juggle"), begins.clone()), None);
        assert_eq!(places(&answer.replace(r#"code="0""#, r#"code="78""#), begins), None);
    }
}

//! `depends` of `[[group]]`: which groups must be up before another's services are started.

use super::names::nearest;
use super::problem::Problem;
use super::reader::Section;
use super::settings::{GroupSettings, Profile, ResourceKind};
use oarlock_core::ids::GroupId;
use std::collections::BTreeSet;

/// Fills in `depends` of every group. `sections` are those that the groups were read from, in order.
pub fn read(sections: &[Section<'_>], groups: &mut [(GroupSettings, Vec<u32>)]) {
    let names: Vec<String> = groups.iter().map(|(group, _)| group.name.clone()).collect();
    for (section, (group, _)) in sections.iter().zip(groups.iter_mut()) {
        group.depends = read_one(section, &group.name, &names);
    }
    for (section, (index, id)) in sections.iter().zip((0..groups.len()).zip((0u8..).map(GroupId))) {
        let group = &groups[index].0;
        if leads_to(groups, &group.depends, id) {
            section.reader.report(
                Problem::error(section.line_of("depends"), format!("group \"{}\" depends on itself", group.name))
                    .hint("none of these groups would ever start; remove depends from one of them"),
            );
        } else if is_oar_without_order(group, groups) {
            section.reader.report(
                Problem::warning(
                    section.line,
                    format!("group \"{}\" runs OAR, has no database and depends on no group", group.name),
                )
                .hint("if its database is that of another group: depends = [\"that group\"]"),
            );
        }
    }
}

fn read_one(section: &Section<'_>, own: &str, names: &[String]) -> Vec<GroupId> {
    let Some(wanted) = section.texts("depends") else { return Vec::new() };
    let mut depends = Vec::new();
    for name in &wanted.value {
        let found = (0u8..).map(GroupId).zip(names).find(|(_, known)| **known == name.value);
        match found {
            None => {
                let problem = Problem::error(name.line, format!("unknown group \"{}\"", name.value));
                let known = names.iter().map(String::as_str).filter(|known| *known != own && !known.is_empty());
                section.reader.report(match nearest(&name.value, known.clone()) {
                    Some(meant) => problem.hint(format!("did you mean \"{meant}\"?")),
                    None => problem.hint(format!("other groups: {}", known.collect::<Vec<_>>().join(", "))),
                });
            }
            Some((id, _)) if depends.contains(&id) => {
                section.reader.error(name.line, format!("group \"{}\" is there twice", name.value));
            }
            Some((id, _)) => depends.push(id),
        }
    }
    depends
}

/// Whether following `from` leads to `wanted`.
fn leads_to(groups: &[(GroupSettings, Vec<u32>)], from: &[GroupId], wanted: GroupId) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = from.to_vec();
    while let Some(id) = left.pop() {
        if id == wanted {
            return true;
        }
        if seen.insert(id)
            && let Some((group, _)) = groups.get(usize::from(id.0))
        {
            left.extend(&group.depends);
        }
    }
    false
}

/// Its database is in another group, as far as one can see, and its order of start is left to chance.
fn is_oar_without_order(group: &GroupSettings, groups: &[(GroupSettings, Vec<u32>)]) -> bool {
    let runs_oar = group.resources.iter().any(
        |resource| matches!(&resource.kind, ResourceKind::Service(service) if service.profile == Some(Profile::Oar)),
    );
    runs_oar
        && group.depends.is_empty()
        && !group.has_database()
        && groups.iter().any(|(other, _)| other.has_database())
}

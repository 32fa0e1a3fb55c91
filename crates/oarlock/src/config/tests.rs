//! The reader on whole files.

use super::*;
use oarlock_core::config::{Failback, Kind, Timing};
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use std::fmt::Write;

/// A good file of the standard layout.
pub const GOOD: &str = include_str!("../../tests/fixtures/two.toml");

#[test]
fn the_standard_layout_is_read() {
    let settings = parse("two.toml", GOOD).unwrap();
    assert_eq!(settings.cluster, "genepi");
    assert_eq!((settings.port, settings.preset, settings.timing), (6700, Preset::Fast, Timing::FAST));
    assert_eq!(settings.warnings, vec![]);
    let ids: Vec<u8> = settings.nodes.iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(settings.node("frontend").unwrap().witness);
    assert_eq!(settings.nodes[0].links.len(), 2);
    assert_eq!(settings.node_by_key(&settings.nodes[1].key).unwrap().name, "server2");

    let group = &settings.groups[0];
    assert_eq!((group.nodes.as_slice(), group.failback), ([NodeId(1), NodeId(2)].as_slice(), Failback::Never));
    let kinds: Vec<Kind> = group.resources.iter().map(|resource| resource.kind.core()).collect();
    assert_eq!(kinds, [Kind::Address, Kind::Postgresql, Kind::Service, Kind::ReaderAddress]);
    let ResourceKind::Postgresql(database) = &group.resources[1].kind else { panic!("not a database") };
    assert_eq!((database.version, database.port, database.probe_deadline.as_millis()), (15, 5432, 1000));
    let ResourceKind::Service(service) = &group.resources[2].kind else { panic!("not a service") };
    assert_eq!(service.profile, Some(Profile::Oar));
    assert_eq!(service.program, Program::Command(vec!["/usr/sbin/Almighty".to_owned()]));
    assert_eq!(service.user, "oar");
}

#[test]
fn the_core_gets_the_same_cluster() {
    let settings = parse("two.toml", GOOD).unwrap();
    let core = settings.core(7);
    assert_eq!((core.generation, &*core.text), (7, GOOD));
    assert_eq!(core.node_name(NodeId(3)), "frontend");
    assert_eq!(core.groups[0].data_resource(GroupId(0)), Some(ResourceId { group: GroupId(0), index: 1 }));
    assert_eq!(settings.resource_ids("db"), [ResourceId { group: GroupId(0), index: 1 }]);
    assert_eq!(settings.resource_ids("oar/readers"), [ResourceId { group: GroupId(0), index: 3 }]);
    assert_eq!(settings.resource_ids("other/readers"), []);
    assert_eq!(settings.resources_of(NodeId(1)).count(), 4);
    assert_eq!(settings.resources_of(NodeId(3)).count(), 0);
}

#[test]
fn every_problem_is_listed_with_its_line() {
    let text = include_str!("../../tests/fixtures/bad.toml");
    let problems = parse("bad.toml", text).unwrap_err();
    insta::assert_snapshot!(problems.to_string());
}

#[test]
fn every_syntax_error_is_listed() {
    let problems = parse("x.toml", "[cluster\nname = \"a\"\nport = = 3\n[[node]]\nname = 'b\n").unwrap_err();
    let lines: Vec<u32> = problems.list().iter().map(|problem| problem.line).collect();
    assert!(lines.contains(&1) && lines.contains(&3) && lines.contains(&5), "{problems}");
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let problems = parse("x.toml", "").unwrap_err();
    insta::assert_snapshot!(problems.to_string());
}

#[test]
fn a_private_key_is_not_repeated() {
    let text = GOOD.replacen("key = \"", "key = \"private:", 1);
    let problems = parse("x.toml", &text).unwrap_err().to_string();
    assert!(problems.contains("private key"), "{problems}");
    assert!(!problems.contains(&GOOD[GOOD.find("key = \"").unwrap() + 7..][..16]), "{problems}");
}

#[test]
fn two_nodes_need_a_decision() {
    let without_witness: String = {
        let start = GOOD.find("[[node]]\nname = \"frontend\"").unwrap();
        let end = GOOD.find("[[group]]").unwrap();
        format!("{}{}", &GOOD[..start], &GOOD[end..])
    };
    let problems = parse("x.toml", &without_witness).unwrap_err();
    assert!(problems.to_string().contains("add a third machine"), "{problems}");
    let fencing = without_witness.replacen("[cluster]", "[cluster]\narbitration = \"fencing\"", 1);
    let settings = parse("x.toml", &fencing).unwrap();
    assert_eq!(settings.warnings.len(), 1);
    assert_eq!(settings.arbitration, Arbitration::Fencing);
}

#[test]
fn four_servers_and_a_witness_are_read() {
    let settings = parse("four.toml", include_str!("../../tests/fixtures/four.toml")).unwrap();
    assert_eq!(settings.groups.len(), 2);
    assert_eq!(settings.resource_ids("vip").len(), 2);
    assert_eq!(settings.core(1).timing, Timing::BALANCED);
    assert_eq!(settings.warnings.len(), 0, "{:?}", settings.warnings);
    let depends: Vec<Vec<GroupId>> = settings.core(1).groups.into_iter().map(|group| group.depends).collect();
    assert_eq!(depends, [vec![], vec![GroupId(0)]]);
}

#[test]
fn an_order_between_groups_that_cannot_be_kept_is_refused() {
    let good = include_str!("../../tests/fixtures/four.toml");
    let with = |line: &str| good.replacen("depends = [\"database\"]", line, 1);
    for (line, expected) in [
        ("depends = [\"databse\"]", "unknown group \"databse\""),
        ("depends = [\"database\", \"database\"]", "group \"database\" is there twice"),
        ("depends = [\"oar\"]", "group \"oar\" depends on itself"),
        ("depends = \"database\"", "\"depends\" must be"),
    ] {
        let problems = parse("x", &with(line)).unwrap_err().to_string();
        assert!(problems.contains(expected), "{line}: {problems}");
    }
    let circle = good.replacen("nodes = [\"db1\", \"db2\"]", "nodes = [\"db1\", \"db2\"]\ndepends = [\"oar\"]", 1);
    let problems = parse("x", &circle).unwrap_err();
    assert_eq!(problems.list().iter().filter(|problem| problem.text.contains("depends on itself")).count(), 2);
    let warnings = parse("x", &with("")).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].text.contains("depends on no group"), "{warnings:?}");
}

#[test]
fn a_huge_or_nested_text_is_refused() {
    let mut text = String::new();
    while text.len() <= TEXT_MAX_BYTES {
        let _ = writeln!(text, "# filler");
    }
    assert!(parse("x", &text).unwrap_err().to_string().contains("bytes"));
    let deep = format!("a = {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse("x", &deep).is_err());
}

#[test]
fn no_damage_to_a_file_is_worse_than_a_problem() {
    let text = include_str!("../../tests/fixtures/four.toml");
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let _ = parse("x", &text[..end]);
    }
    let lines: Vec<&str> = text.lines().collect();
    for gone in 0..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(line, _)| *line != gone).map(|(_, line)| *line).collect();
        let _ = parse("x", &rest.join("\n"));
        for value in ["-1", "99999999999999999999", "[[1]]", "{ a = 1 }", "\"\\u0000\"", "1979-05-27", "true", "\"\""] {
            let Some((key, _)) = lines[gone].split_once('=') else { continue };
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            changed[gone] = format!("{key}= {value}");
            if let Ok(settings) = parse("x", &changed.join("\n")) {
                // What is accepted must be fit for the core.
                assert!(!settings.core(1).nodes.is_empty());
            }
        }
    }
}

#[test]
fn the_reference_names_every_key() {
    let page = reference::markdown();
    for section in schema::SECTIONS {
        for key in section.keys {
            assert!(page.contains(&format!("| `{}` |", key.name)), "{}", key.name);
        }
    }
}

#[test]
fn wrong_types_are_told() {
    let text = GOOD.replacen("name = \"genepi\"", "name = 3", 1).replacen("version = \"15\"", "version = true", 1);
    let problems = parse("x", &text).unwrap_err().to_string();
    assert!(problems.contains("\"name\" must be a string, not the number 3"), "{problems}");
    assert!(problems.contains("\"version\" must be a string, not the word true"), "{problems}");
}

/// The standard layout with MariaDB instead.
fn on_mariadb() -> String {
    GOOD.replacen("kind = \"postgresql\"", "kind = \"mariadb\"", 1)
        .replacen("version = \"15\"", "version = \"10.11\"", 1)
        .replacen("/var/lib/postgresql/15/main", "/var/lib/mysql", 1)
}

#[test]
fn mariadb_is_read() {
    let settings = parse("two.toml", &on_mariadb()).unwrap();
    assert_eq!(settings.warnings, vec![]);
    let group = &settings.groups[0];
    let ResourceKind::Mariadb(database) = &group.resources[1].kind else { panic!("not MariaDB") };
    assert_eq!((database.version.to_string().as_str(), database.port, database.copy_port), ("10.11", 3306, 4444));
    assert_eq!((database.user.as_str(), database.probe_deadline.as_millis()), ("mysql", 1000));
    assert_eq!(group.resources[1].kind.core(), Kind::Mariadb);
    let core = settings.core(7);
    assert_eq!(core.groups[0].data_resource(GroupId(0)), Some(ResourceId { group: GroupId(0), index: 1 }));
}

#[test]
fn what_is_wrong_with_mariadb_is_listed() {
    let more = "version = \"9.6\"\n  port = 4444\n  user = \"root\"\n  hba_file = \"/x\"\n  bind = \"*\"";
    let text = on_mariadb().replacen("version = \"10.11\"", more, 1);
    insta::assert_snapshot!(parse("bad.toml", &text).unwrap_err().to_string());
    let three = on_mariadb().replacen("role = \"witness\"\n", "", 1).replacen(
        "nodes = [\"server1\", \"server2\"]",
        "nodes = [\"server1\", \"server2\", \"frontend\"]",
        1,
    );
    insta::assert_snapshot!(
        "three_copies_of_mariadb_are_refused",
        parse("three.toml", &three).unwrap_err().to_string()
    );
    let newer = on_mariadb().replacen("10.11", "11.8", 1);
    let warnings = parse("x", &newer).unwrap().warnings;
    assert!(warnings[0].text.contains("MariaDB 11.8 was not tested"), "{warnings:?}");
}

#[test]
fn databases_of_two_engines_do_not_share_ports() {
    let second = on_mariadb().split_once("[[group]]").unwrap().1.replacen("\"oar\"", "\"other\"", 1);
    let second = second.split("\n  [[group.resource]]").collect::<Vec<_>>();
    let text = format!("{GOOD}\n[[group]]{}\n  [[group.resource]]{}\n  port = 5432\n", second[0], second[2].trim_end());
    let problems = parse("x", &text).unwrap_err().to_string();
    assert!(problems.contains("port 5432 is already used by resource \"db\""), "{problems}");
}

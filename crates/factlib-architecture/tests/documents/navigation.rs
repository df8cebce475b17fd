//! The navigation of the site, and docs/README.md, which is the same for readers of the repository.

use regex::Regex;

use crate::{documents_of, read};

/// The pages in `site/mkdocs.yml`, in order, as links from docs/.
fn of_the_site() -> Vec<String> {
    let text = read("site/mkdocs.yml");
    let (_, navigation) = text.split_once("\nnav:\n").expect("a navigation");
    let pages = navigation.lines().filter_map(|line| line.rsplit_once(": "));
    let pages = pages.filter(|(_, page)| *page != "README.md");
    pages.map(|(_, page)| page.replace("repository/", "../")).collect()
}

#[test]
fn every_page_is_in_the_navigation() {
    let (navigation, pages) = (of_the_site(), documents_of("docs"));
    let pages = pages.iter().filter_map(|page| page.file_name()?.to_str());
    let missing: Vec<_> = pages
        .filter(|page| *page != "README.md" && !navigation.iter().any(|of| of == page))
        .collect();
    assert!(missing.is_empty(), "site/mkdocs.yml lacks {missing:?}");
}

#[test]
fn the_index_has_the_pages_of_the_navigation_in_their_order() {
    let index = read("docs/README.md");
    let link = Regex::new(r"(?m)^- \[[^\]]*\]\(([^)#]+)\)").expect("a pattern");
    let links: Vec<_> = link.captures_iter(&index).map(|link| link[1].to_owned()).collect();
    assert_eq!(links, of_the_site(), "docs/README.md (left) and site/mkdocs.yml (right) differ");
}

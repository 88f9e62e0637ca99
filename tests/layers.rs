//! Imports between the files of `src`: no file uses one of a layer above.
//!
//! `src` is read as the compiler reads it: modules, `use` trees and paths in the
//! code, but for unit tests. Each path leads to the file that defines what it
//! names, also through re-exports; that is an arrow between two files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{
    Attribute, Item, UseTree, Visibility,
    visit::{self, Visit},
};

/// A layer on each line, from the bottom to the top, and behind its colon those below that it may
/// use. A layer is a file of `src` with the folder of its name, without what is a layer of its own
/// in it.
const LAYERS: &str = "
    # Names that all layers use.
    guide:
    random_fraction:
    ending:
    error:
    id: error
    realm: error
    event: ending realm id
    request_tokens: id
    # Pure: no input, no output.
    cookie: request_tokens id error
    expiry: cookie
    forwarding: expiry
    timeouts: expiry error
    touch: timeouts expiry
    document: expiry cookie error
    row: document expiry id
    login: realm expiry cookie error
    format: realm request_tokens cookie document expiry timeouts id error
    state: row login document expiry timeouts touch cookie id error
    takeover: row document expiry cookie request_tokens id error
    # Logs and metrics.
    telemetry: request_tokens id error
    # Nothing below `rows` knows a session, and nothing below `table` a column.
    store/sql:
    store/connection: store/sql telemetry random_fraction error
    store/table: store/connection store/sql telemetry format login document expiry \
        forwarding event error
    store/batch: store/table store/sql telemetry row expiry id random_fraction error
    store/watches: store/batch store/table store/connection telemetry row format expiry \
        forwarding id ending event error
    store/rows: store/batch store/watches store/table store/connection store/sql telemetry \
        state row login format document expiry forwarding timeouts touch id random_fraction \
        takeover realm ending event error
    store: store/rows store/table store/connection store/sql telemetry format login \
        forwarding realm id event error
    store/requests: store store/watches store/rows store/batch store/table telemetry state \
        row login document expiry timeouts touch id takeover realm format ending error
    store/adapter: store store/rows store/batch state row login document expiry timeouts \
        touch id error
    store/admin: store store/watches store/rows store/batch store/table store/connection \
        telemetry state row login realm format document expiry timeouts touch id random_fraction \
        ending error
    # The session of a handler, the request, and the layer.
    session: store store/watches telemetry state row login format document expiry timeouts \
        touch cookie id ending error
    request: session store telemetry state row format document forwarding timeouts cookie \
        request_tokens id takeover error
    layer: takeover request session store format timeouts touch cookie id error
    # For the tests of applications, and for fuzzing.
    testing: layer request session store/admin row cookie id error
    fuzzing: takeover format state document cookie request_tokens realm id
    lib:
";

/// A layer, and those that it may use.
type Layer<'l> = (&'l str, Vec<&'l str>);

fn layers(text: &str) -> Vec<Layer<'_>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(':').expect("a colon"))
        .map(|(layer, allowed)| (layer, allowed.split_whitespace().collect()))
        .collect()
}

#[test]
fn no_file_uses_a_layer_above_its_own() {
    assert_eq!(forbidden(&ARROWS, &layers(LAYERS)), Vec::<String>::new());
}

#[test]
fn the_layers_stand_one_on_another() {
    let layers = layers(LAYERS);
    for (at, (name, allowed)) in layers.iter().enumerate() {
        for below in allowed {
            let is_below = layers[..at].iter().any(|(layer, _)| layer == below);
            assert!(is_below, "{below} is not above {name} in the list");
        }
    }
}

/// An arrow that is not needed is not allowed either, so that a new one is a decision.
#[test]
fn every_arrow_that_is_allowed_is_needed() {
    let layers = layers(LAYERS);
    for (name, allowed) in &layers {
        for below in allowed {
            let is_needed = ARROWS.iter().any(|arrow| {
                layer_of(&arrow.from, &layers) == Some(name)
                    && layer_of(&arrow.to, &layers) == Some(below)
            });
            assert!(is_needed, "{name} does not use {below}");
        }
    }
}

/// Also within a layer, so that the files can be read from the bottom up.
#[test]
fn no_two_files_use_each_other() {
    assert_eq!(circle(&ARROWS), None);
}

/// The check itself: a layer below names one above by each way there is.
#[test]
fn an_arrow_that_points_up_is_found() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("house");
    for (path, text) in [
        (
            "lib.rs",
            "mod low;\nmod high;\npub use crate::high::Above;\n",
        ),
        (
            "high.rs",
            "mod inner;\npub use inner::Above;\npub(crate) fn up() {}\n",
        ),
        ("high/inner.rs", "pub struct Above;\n"),
        (
            "low.rs",
            "use crate::{\n    Above as Renamed,\n    high::{self, inner::Above},\n};\n\
             fn one() { high::up() }\n\
             fn two() -> super::high::Above { crate::Above }\n\
             fn three() { println!(\"{}\", [crate::high::up()].len()) }\n\
             #[cfg(test)]\nmod tests { use crate::high::Above; }\n\
             // crate::high::Above\n",
        ),
    ] {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a place for it");
        fs::write(file, text).expect("room for it");
    }
    let house = House::read(&root);
    let found = forbidden(&house.arrows(), &layers("low:\nhigh:\nlib:"));
    assert_eq!(
        found,
        [
            "low.rs:2 uses high/inner.rs by crate::Above: low may not use high",
            "low.rs:3 uses high/inner.rs by crate::high::inner::Above: low may not use high",
            "low.rs:5 uses high.rs by high::up: low may not use high",
            "low.rs:6 uses high/inner.rs by crate::Above: low may not use high",
            "low.rs:6 uses high/inner.rs by super::high::Above: low may not use high",
            "low.rs:7 uses high.rs by crate::high::up: low may not use high",
        ]
    );
    let both = layers("high:\nlow: high\nlib:");
    assert_eq!(forbidden(&house.arrows(), &both), Vec::<String>::new());
}

#[test]
fn a_circle_is_found() {
    let arrow = |from: &str, to: &str| Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        line: 1,
        path: String::new(),
    };
    let there = [
        arrow("a.rs", "b.rs"),
        arrow("b.rs", "c.rs"),
        arrow("a.rs", "c.rs"),
    ];
    assert_eq!(circle(&there), None);
    let back = [
        arrow("a.rs", "b.rs"),
        arrow("b.rs", "c.rs"),
        arrow("c.rs", "a.rs"),
    ];
    let found = circle(&back).expect("a circle");
    assert_eq!(found, ["a.rs", "b.rs", "c.rs", "a.rs"]);
}

/// Those of this crate.
static ARROWS: LazyLock<Vec<Arrow>> = LazyLock::new(|| {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    House::read(&src).arrows()
});

/// The layer of a file, by the longest name that fits.
fn layer_of<'l>(file: &str, layers: &[Layer<'l>]) -> Option<&'l str> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let fits = |layer: &str| {
        path.strip_prefix(layer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fitting = layers
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| fits(name));
    fitting.max_by_key(|name| name.len())
}

fn forbidden(arrows: &[Arrow], layers: &[Layer<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for arrow in arrows {
        let (from, to) = (layer_of(&arrow.from, layers), layer_of(&arrow.to, layers));
        let (Some(from), Some(to)) = (from, to) else {
            found.push(format!("{arrow}: one of them is in no layer"));
            continue;
        };
        let allowed = layers.iter().find(|(name, _)| *name == from);
        if from != to && !allowed.is_some_and(|(_, allowed)| allowed.contains(&to)) {
            found.push(format!("{arrow}: {from} may not use {to}"));
        }
    }
    found
}

/// Files that use each other, one after the other, if there are any.
fn circle(arrows: &[Arrow]) -> Option<Vec<String>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        uses.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    // Those that nothing uses, or that use nothing, are in no circle.
    loop {
        let used: BTreeSet<&str> = uses.values().flatten().copied().collect();
        let before = uses.len();
        uses.retain(|file, uses| used.contains(file) && !uses.is_empty());
        let left: BTreeSet<&str> = uses.keys().copied().collect();
        for uses in uses.values_mut() {
            uses.retain(|file| left.contains(file));
        }
        if uses.len() == before && uses.values().all(|uses| !uses.is_empty()) {
            break;
        }
    }
    let mut way = vec![*uses.keys().next()?];
    loop {
        let last = way[way.len() - 1];
        let next = *uses[last].iter().next().expect("it uses something");
        let seen = way.iter().position(|file| *file == next);
        way.push(next);
        if let Some(start) = seen {
            return Some(way[start..].iter().map(|file| (*file).to_owned()).collect());
        }
    }
}

/// One file uses what another one defines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    line: usize,
    to: String,
    path: String,
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            line,
            to,
            path,
        } = self;
        write!(f, "{from}:{line} uses {to} by {path}")
    }
}

/// The modules of a crate; the first one is its root.
struct House {
    modules: Vec<Module>,
}

#[derive(Default)]
struct Module {
    /// Below `src`.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// In the code, with their lines.
    paths: Vec<(Vec<String>, usize)>,
}

/// A leaf of a `use` tree.
struct Import {
    path: Vec<String>,
    /// What it is called here; none for `*` and `_`.
    name: Option<String>,
    is_glob: bool,
    is_export: bool,
    line: usize,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

impl House {
    fn read(src: &Path) -> Self {
        let mut house = Self {
            modules: Vec::new(),
        };
        house.file(src, Path::new("lib.rs"), None);
        house
    }

    fn file(&mut self, src: &Path, path: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(src.join(path)).expect("a file of the crate");
        let file = syn::parse_file(&text).expect("it compiles");
        let name = path.to_str().expect("ASCII").to_owned();
        let module = self.add(name, parent);
        // `a.rs` has its modules in `a`.
        let folder = match parent {
            None => PathBuf::new(),
            Some(_) => path.with_extension(""),
        };
        self.items(src, &folder, module, &file.items);
        module
    }

    fn add(&mut self, file: String, parent: Option<usize>) -> usize {
        self.modules.push(Module {
            file,
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    fn items(&mut self, src: &Path, folder: &Path, module: usize, items: &[Item]) {
        for item in items.iter().filter(|item| !is_left_out(attributes(item))) {
            if let Item::Mod(declared) = item {
                let name = declared.ident.to_string();
                let child = match &declared.content {
                    Some((_, items)) => {
                        let file = self.modules[module].file.clone();
                        let child = self.add(file, Some(module));
                        self.items(src, &folder.join(&name), child, items);
                        child
                    }
                    None => {
                        let path = named(&declared.attrs)
                            .unwrap_or_else(|| folder.join(&name).with_extension("rs"));
                        self.file(src, &path, Some(module))
                    }
                };
                self.modules[module].children.insert(name, child);
                continue;
            }
            let here = &mut self.modules[module];
            here.items.extend(defined(item));
            Reader(here).visit_item(item);
        }
    }

    fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.resolve_unless_seen(module, path, &mut BTreeSet::new())
    }

    fn resolve_unless_seen(
        &self,
        module: usize,
        path: &[String],
        seen: &mut BTreeSet<(usize, Vec<String>)>,
    ) -> Option<Target> {
        let Some((head, rest)) = path.split_first() else {
            return Some(Target::Module(module));
        };
        if !seen.insert((module, path.to_vec())) {
            return None;
        }
        let here = &self.modules[module];
        match head.as_str() {
            "crate" => return self.resolve_unless_seen(0, rest, seen),
            "self" => return self.resolve_unless_seen(module, rest, seen),
            "super" => return self.resolve_unless_seen(here.parent?, rest, seen),
            _ => {}
        }
        if let Some(child) = here.children.get(head) {
            return self.resolve_unless_seen(*child, rest, seen);
        }
        if here.items.contains(head) {
            return rest.is_empty().then_some(Target::Item(module));
        }
        here.imports.iter().find_map(|import| {
            let is_named = import.name.as_ref() == Some(head) && import.path != [head.clone()];
            let is_of_ours = import.path.first().is_some_and(|first| is_keyword(first));
            let further: Vec<_> = match (is_named, import.is_glob && is_of_ours) {
                (true, _) => import.path.iter().chain(rest).cloned().collect(),
                (false, true) => import.path.iter().chain(path).cloned().collect(),
                (false, false) => return None,
            };
            self.resolve_unless_seen(module, &further, seen)
        })
    }

    fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = BTreeSet::new();
        for (number, module) in self.modules.iter().enumerate() {
            for import in &module.imports {
                let target = self.resolve(number, &import.path);
                let is_used = module.uses(import.name.as_deref());
                if let Some(Target::Item(owner)) = target
                    && !(import.is_export && self.is_below(owner, number) && !is_used)
                {
                    arrows.extend(self.arrow(module, owner, import.line, &import.path));
                }
            }
            for (path, line) in &module.paths {
                // What follows may be a member of a type.
                let target = (1..=path.len())
                    .rev()
                    .find_map(|length| Some((length, self.resolve(number, &path[..length])?)));
                if let Some((length, Target::Item(owner))) = target
                    && length > 1
                {
                    arrows.extend(self.arrow(module, owner, *line, &path[..length]));
                }
            }
        }
        arrows.into_iter().collect()
    }

    fn arrow(&self, from: &Module, owner: usize, line: usize, path: &[String]) -> Option<Arrow> {
        let to = &self.modules[owner].file;
        (from.file != *to).then(|| Arrow {
            from: from.file.clone(),
            line,
            to: to.clone(),
            path: path.join("::"),
        })
    }

    /// A table of contents does not use what it lists.
    fn is_below(&self, module: usize, of: usize) -> bool {
        let parents = std::iter::successors(Some(module), |module| self.modules[*module].parent);
        parents.into_iter().any(|parent| parent == of)
    }
}

impl Module {
    fn uses(&self, name: Option<&str>) -> bool {
        let mut heads = self.paths.iter().filter_map(|(path, _)| path.first());
        heads.any(|head| Some(head.as_str()) == name)
    }
}

/// Reads the paths of an item.
struct Reader<'m>(&'m mut Module);

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_left_out(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        if !is_left_out(&method.attrs) {
            visit::visit_impl_item_fn(self, method);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_left_out(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    /// `pub(in crate::store)` is no use of it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        let first = if item.leading_colon.is_some() {
            vec![String::new()]
        } else {
            Vec::new()
        };
        leaves(&item.tree, &first, is_export, &mut self.0.imports);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        let line = path
            .segments
            .first()
            .map(|first| first.ident.span().start().line);
        if path.leading_colon.is_none() {
            self.0
                .paths
                .push((segments.collect(), line.unwrap_or_default()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        in_tokens(called.tokens.clone(), &mut self.0.paths);
    }
}

/// The paths in the arguments of a macro, of which only the macro knows more.
fn in_tokens(tokens: TokenStream, paths: &mut Vec<(Vec<String>, usize)>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => in_tokens(group.stream(), paths),
            TokenTree::Ident(first) => {
                let mut path = vec![first.to_string()];
                while is_colon(at + 1)
                    && is_colon(at + 2)
                    && let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                {
                    path.push(next.to_string());
                    at += 3;
                }
                paths.push((path, first.span().start().line));
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

fn leaves(tree: &UseTree, before: &[String], is_export: bool, imports: &mut Vec<Import>) {
    let with = |ident: &syn::Ident| {
        let mut path = before.to_vec();
        if ident != "self" || path.is_empty() {
            path.push(ident.to_string());
        }
        path
    };
    let mut add = |path: Vec<String>, name: Option<String>, is_glob, line| {
        imports.push(Import {
            path,
            name,
            is_glob,
            is_export,
            line,
        });
    };
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), is_export, imports),
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, before, is_export, imports);
            }
        }
        UseTree::Name(leaf) => {
            let path = with(&leaf.ident);
            let name = path.last().cloned();
            add(path, name, false, leaf.ident.span().start().line);
        }
        UseTree::Rename(leaf) => {
            let name = leaf.rename.to_string();
            let line = leaf.ident.span().start().line;
            add(
                with(&leaf.ident),
                (name != "_").then_some(name),
                false,
                line,
            );
        }
        UseTree::Glob(leaf) => {
            let line = leaf.star_token.spans[0].start().line;
            add(before.to_vec(), None, true, line);
        }
    }
}

fn is_keyword(segment: &str) -> bool {
    matches!(segment, "crate" | "self" | "super")
}

/// Unit tests, and what only the documentation needs.
fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let first = list.tokens.clone().into_iter().next();
        list.path.is_ident("cfg")
            && matches!(first, Some(TokenTree::Ident(what))
                if what == "test" || what == "doc" || what == "doctest")
    })
}

/// The file that a `path` attribute names, the first of two if there are two.
fn named(attributes: &[Attribute]) -> Option<PathBuf> {
    attributes.iter().find_map(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return None;
        };
        let text = list.tokens.to_string();
        let (_, rest) = text.split_once("path = \"")?;
        let (path, _) = rest.split_once('"')?;
        list.path.is_ident("cfg_attr").then(|| PathBuf::from(path))
    })
}

/// The names that an item gives to its module.
fn defined(item: &Item) -> Vec<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => match &item.ident {
            Some(ident) => ident,
            None => return defined_by(item.mac.tokens.clone()),
        },
        _ => return Vec::new(),
    };
    vec![ident.to_string()]
}

/// What stands between a macro's braces as an item: `struct Name`, or `Name {`.
fn defined_by(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(name) = token else {
            continue;
        };
        let is_declared = at.checked_sub(1).is_some_and(|before| {
            matches!(&tokens[before], TokenTree::Ident(kind)
                if kind == "struct" || kind == "enum" || kind == "static")
        });
        let is_a_body = matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
            if group.delimiter() == Delimiter::Brace);
        if is_declared || is_a_body {
            names.push(name.to_string());
        }
    }
    names
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

//! What the tests of the source ask about items: types that others may name, and where `impl` blocks
//! stand.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn's enums list all of Rust, and grow")]

use quote::ToTokens as _;
use syn::{Attribute, Item, ItemImpl, Type, Visibility};

use super::Import;
use super::imports::{Exports, Scope};

/// A type that others may name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicType {
    /// Its name.
    pub name: String,
}

/// An `impl` block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The type that it is about; one of this workspace.
    pub of: Import,
    /// The trait that it is an `impl` of, where that is one of this workspace.
    pub of_trait: Option<Import>,
}

/// Whether something is compiled for tests only.
pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)"
    })
}

/// The file that `#[path = "…"]` names.
pub(super) fn named_file(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(file), .. }) = &pair.value else {
            return None;
        };
        pair.path.is_ident("path").then(|| file.value())
    })
}

/// Whether the whole crate may name it: also what `pub(crate)` says, in a private module.
fn is_public(vis: &Visibility) -> bool {
    match vis {
        Visibility::Public(_) => true,
        Visibility::Restricted(inside) => inside.path.is_ident("crate"),
        Visibility::Inherited => false,
    }
}

pub(super) fn public_types(items: &[Item]) -> Vec<PublicType> {
    let named = items.iter().filter_map(|item| match item {
        Item::Struct(item) => Some((&item.vis, &item.ident, &item.attrs)),
        Item::Enum(item) => Some((&item.vis, &item.ident, &item.attrs)),
        Item::Trait(item) => Some((&item.vis, &item.ident, &item.attrs)),
        Item::Type(item) => Some((&item.vis, &item.ident, &item.attrs)),
        Item::Union(item) => Some((&item.vis, &item.ident, &item.attrs)),
        _ => None,
    });
    let public = named.filter(|(vis, _name, attrs)| is_public(vis) && !is_for_tests(attrs));
    let mut types: Vec<_> =
        public.map(|(_vis, name, _attrs)| PublicType { name: name.to_string() }).collect();
    // `words!` makes an enum of the word before its braces.
    let words = items.iter().filter_map(|item| match item {
        Item::Macro(item) if item.mac.path.segments.last()?.ident == "words" => {
            let tokens = item.mac.tokens.clone().into_iter();
            let mut names = tokens.filter_map(|token| match token {
                proc_macro2::TokenTree::Ident(ident) => Some(ident.to_string()),
                _ => None,
            });
            names.next().map(|name| PublicType { name })
        }
        _ => None,
    });
    types.extend(words);
    types
}

pub(super) fn blocks(scope: &Scope<'_>, exports: &Exports<'_>, items: &[Item]) -> Vec<Block> {
    let blocks = items.iter().filter_map(|item| match item {
        Item::Impl(block) if !is_for_tests(&block.attrs) => Some(block),
        _ => None,
    });
    let traits: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Trait(item) => Some(item.ident.to_string()),
            _ => None,
        })
        .collect();
    let resolved = blocks.filter_map(|block| {
        let trait_path = block.trait_.as_ref().map(|(_not, path, _for)| words_of(path));
        let known = |words: &[String]| scope.resolve(words).map(|path| exports.definition(&path));
        let of_trait = trait_path.and_then(|words| {
            let own = words.last().filter(|name| traits.contains(*name));
            known(&words).or_else(|| own.map(|name| scope.own(name)))
        });
        Some(Block { of: known(&type_words(block)?)?, of_trait })
    });
    resolved.collect()
}

/// The path of the type that a block is about. A name that nothing brings in is defined in the
/// block's own module, or is not ours: neither is resolved.
fn type_words(block: &ItemImpl) -> Option<Vec<String>> {
    let mut of = &*block.self_ty;
    while let Type::Reference(reference) = of {
        of = &reference.elem;
    }
    let Type::Path(path) = of else { return None };
    Some(words_of(&path.path))
}

pub(super) fn words_of(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

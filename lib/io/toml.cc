/* SPDX-License-Identifier: MIT */
/* TOML by toml++, the one C++ file of the library: turns its nodes into jansson's and its
 * exceptions into an error.  It knows no file, no limit but that of nesting, and what no value
 * means. */
#include "io/tomltree.h"

#include <cmath>
#include <cstring>
#include <new>
#include <sstream>

#include <jansson.h>

#define TOML_HEADER_ONLY       1
#define TOML_MAX_NESTED_VALUES SLR_TOML_DEPTH
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace
{

/* What is TOML but has no place in a tree. */
struct refused {
    const char *text;
    toml::source_position at;
};

/* Owns one reference. */
class tree
{
  public:
    explicit tree(json_t *j) : json(j)
    {
        if (!j)
            throw std::bad_alloc();
    }
    tree(const tree &) = delete;
    tree &operator=(const tree &) = delete;
    ~tree()
    {
        json_decref(json);
    }
    json_t *take()
    {
        return json_incref(json);
    }
    json_t *const json;
};

void check(int rc)
{
    if (rc)
        throw std::bad_alloc();
}

json_t *text_of(std::string_view text, const toml::node &node)
{
    if (text.find('\0') != std::string_view::npos)
        throw refused{"a NUL character", node.source().begin};
    return json_stringn(text.data(), text.size());
}

/* Dates and times print themselves. */
template <typename T> json_t *printed(const T &value)
{
    std::ostringstream out;
    out << value;
    const std::string text = out.str();
    return json_stringn(text.data(), text.size());
}

json_t *real_of(double v, const toml::node &node)
{
    if (!std::isfinite(v))
        throw refused{"inf and nan mean nothing here", node.source().begin};
    return json_real(v);
}

json_t *convert(const toml::node &node);

json_t *convert_table(const toml::table &table)
{
    tree out(json_object());
    for (const auto &[key, value] : table) {
        const std::string name(key.str());
        if (name.find('\0') != std::string::npos)
            throw refused{"a NUL character in a key", key.source().begin};
        check(json_object_set_new(out.json, name.c_str(), convert(value)));
    }
    return out.take();
}

json_t *convert_array(const toml::array &array)
{
    tree out(json_array());
    for (const auto &value : array)
        check(json_array_append_new(out.json, convert(value)));
    return out.take();
}

/* Never NULL but for want of memory. */
json_t *convert(const toml::node &node)
{
    switch (node.type()) {
    case toml::node_type::table:
        return convert_table(*node.as_table());
    case toml::node_type::array:
        return convert_array(*node.as_array());
    case toml::node_type::string:
        return text_of(node.as_string()->get(), node);
    case toml::node_type::integer:
        return json_integer(node.as_integer()->get());
    case toml::node_type::floating_point:
        return real_of(node.as_floating_point()->get(), node);
    case toml::node_type::boolean:
        return json_boolean(node.as_boolean()->get());
    case toml::node_type::date:
        return printed(node.as_date()->get());
    case toml::node_type::time:
        return printed(node.as_time()->get());
    default:
        return printed(node.as_date_time()->get());
    }
}

void tell(slr_toml_error *error, std::string_view text, const toml::source_position &at)
{
    const size_t n = std::min(text.size(), sizeof error->text - 1);
    std::memcpy(error->text, text.data(), n);
    error->text[n] = '\0';
    error->line = at.line;
    error->column = at.column;
}

} // namespace

json_t *slr_toml_tree(const char *text, size_t n, slr_toml_error *error)
{
    *error = slr_toml_error();
    try {
        return convert_table(toml::parse(std::string_view(text, n)));
    } catch (const toml::parse_error &e) {
        tell(error, e.description(), e.source().begin);
    } catch (const refused &e) {
        tell(error, e.text, e.at);
    } catch (const std::bad_alloc &) {
    } catch (...) {
        tell(error, "it cannot be read", toml::source_position{});
    }
    return nullptr;
}

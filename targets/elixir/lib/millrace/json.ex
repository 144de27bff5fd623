defmodule Millrace.Json do
  @moduledoc """
  The members of a JSON object as they were sent. A parsed and re-written payload would lose big numbers and duplicate keys (rule I8), so
  values are only checked and measured here. Strings are read by jiffy.
  """

  @doc "Each member's name with the text of its value, in order; `:error` when the text is not one JSON object."
  def members(text) do
    with true <- String.valid?(text), "{" <> rest <- space(text) do
      {:ok, rest |> space() |> first_member()}
    else
      _ -> :error
    end
  catch
    :malformed -> :error
  end

  defp first_member("}" <> rest), do: ending(rest)
  defp first_member(rest), do: member(rest, [])

  defp member(<<?", after_quote::binary>> = begin, members) do
    rest = string(after_quote)
    name = read_string(between(begin, rest))
    value_begin = rest |> space() |> expect(?:) |> space()
    rest = value(value_begin)
    members = [{name, between(value_begin, rest)} | members]

    case space(rest) do
      "," <> rest -> rest |> space() |> member(members)
      "}" <> rest -> ending(rest, members)
      _ -> throw(:malformed)
    end
  end

  defp member(_, _), do: throw(:malformed)

  defp ending(rest, members \\ []), do: if(space(rest) == "", do: Enum.reverse(members), else: throw(:malformed))

  @doc "The string that this JSON text is; throws `:malformed` for half of a surrogate pair."
  def read_string(text) do
    :jiffy.decode(text)
  catch
    _, _ -> throw(:malformed)
  end

  defp between(begin, rest), do: binary_part(begin, 0, byte_size(begin) - byte_size(rest))

  defp space(<<c, rest::binary>>) when c in ' \t\n\r', do: space(rest)
  defp space(rest), do: rest

  defp expect(<<c, rest::binary>>, c), do: rest
  defp expect(_, _), do: throw(:malformed)

  # What is left after a value.
  defp value("{" <> rest), do: rest |> space() |> object()
  defp value("[" <> rest), do: rest |> space() |> array()
  defp value("\"" <> rest), do: string(rest)
  defp value("true" <> rest), do: rest
  defp value("false" <> rest), do: rest
  defp value("null" <> rest), do: rest
  defp value("-" <> rest), do: integer(rest)
  defp value(rest), do: integer(rest)

  defp object("}" <> rest), do: rest
  defp object(rest), do: pairs(rest)

  defp pairs("\"" <> rest) do
    rest = rest |> string() |> space() |> expect(?:) |> space() |> value() |> space()

    case rest do
      "," <> rest -> rest |> space() |> pairs()
      "}" <> rest -> rest
      _ -> throw(:malformed)
    end
  end

  defp pairs(_), do: throw(:malformed)

  defp array("]" <> rest), do: rest
  defp array(rest), do: items(rest)

  defp items(rest) do
    case rest |> value() |> space() do
      "," <> rest -> rest |> space() |> items()
      "]" <> rest -> rest
      _ -> throw(:malformed)
    end
  end

  defguardp is_hex(c) when c in ?0..?9 or c in ?a..?f or c in ?A..?F

  defp string("\"" <> rest), do: rest
  defp string(<<?\\, c, rest::binary>>) when c in '"\\/bfnrt', do: string(rest)

  defp string(<<?\\, ?u, a, b, c, d, rest::binary>>) when is_hex(a) and is_hex(b) and is_hex(c) and is_hex(d),
    do: string(rest)

  defp string(<<c, rest::binary>>) when c >= 0x20 and c != ?\\, do: string(rest)
  defp string(_), do: throw(:malformed)

  defp integer("0" <> rest), do: fraction(rest)
  defp integer(<<c, rest::binary>>) when c in ?1..?9, do: rest |> digits() |> fraction()
  defp integer(_), do: throw(:malformed)

  defp fraction("." <> rest), do: rest |> some_digits() |> exponent()
  defp fraction(rest), do: exponent(rest)

  defp exponent(<<c, sign, rest::binary>>) when c in 'eE' and sign in '+-', do: some_digits(rest)
  defp exponent(<<c, rest::binary>>) when c in 'eE', do: some_digits(rest)
  defp exponent(rest), do: rest

  defp some_digits(<<c, rest::binary>>) when c in ?0..?9, do: digits(rest)
  defp some_digits(_), do: throw(:malformed)

  defp digits(<<c, rest::binary>>) when c in ?0..?9, do: digits(rest)
  defp digits(rest), do: rest
end

defmodule Millrace.Event do
  @moduledoc "What an event is, and from the bytes of a request to it (rules I1, I4, I5, I8). Times are microseconds since 1970, UTC."

  alias Millrace.{Json, Problem}

  defstruct [:id, :organization_id, :type, :dedup_id, :payload, :created_at_us, :persisted_at_us, state: "pending"]

  @payload_bytes_max 256 * 1024
  @name_characters_max 255

  @doc "What a body may have: the payload, two names of which each character may be sent as twelve bytes, keys, white space."
  def body_bytes_max, do: @payload_bytes_max + 16 * 1024
  def payload_bytes_max, do: @payload_bytes_max

  @doc "The event in a request's body; its id is made of the time and says when it was taken in."
  def parse(body, organization_id) do
    with {:ok, members} <- members(body),
         {:ok, type} <- name(members, "type"),
         {:ok, dedup_id} <- name(members, "dedup_id"),
         :ok <- if(type, do: :ok, else: Problem.field("type", "is missing; send a string of 1 to 255 characters")),
         {:ok, payload} <- payload(members) do
      now_us = System.os_time(:microsecond)
      event = %__MODULE__{id: new_id(now_us), organization_id: organization_id, created_at_us: now_us}
      {:ok, %{event | type: type, dedup_id: dedup_id, payload: payload}}
    end
  end

  defp members(body) do
    case Json.members(body) do
      :error -> Problem.new(400, "malformed-body", "the body is not a JSON object; send one with 'type' and 'payload', in UTF-8")
      {:ok, members} -> once_each(members)
    end
  end

  defp once_each(members) do
    ours = for {name, text} <- members, name in ["type", "payload", "dedup_id"], do: {name, text}
    names = Enum.map(ours, &elem(&1, 0))

    case names -- Enum.uniq(names) do
      [] -> {:ok, Map.new(ours)}
      [name | _] -> Problem.field(name, "is there twice; send it once")
    end
  end

  defp payload(%{"payload" => text}) when byte_size(text) > @payload_bytes_max, do: Problem.payload_too_large()
  # A copy, so that the rest of the request is not kept with it.
  defp payload(%{"payload" => text}), do: {:ok, :binary.copy(text)}
  defp payload(_), do: Problem.field("payload", "is missing; send any JSON value")

  defp name(members, field) do
    case members do
      %{^field => "\"" <> _ = text} -> text |> Json.read_string() |> check_name(field)
      %{^field => _} -> not_a_name(field)
      _ -> {:ok, nil}
    end
  catch
    :malformed -> Problem.field(field, "holds half of a surrogate pair; send Unicode text")
  end

  defp check_name(text, field) do
    cond do
      text == "" or length(String.to_charlist(text)) > @name_characters_max -> not_a_name(field)
      String.contains?(text, <<0>>) -> Problem.field(field, "holds a NUL character, which the database cannot keep")
      true -> {:ok, text}
    end
  end

  defp not_a_name(field), do: Problem.field(field, "is not a string of 1 to 255 characters; send one")

  @doc "A UUIDv7 of which the first 60 bits that are free are the time in 1/4096 ms, so ids sort by time."
  def new_id(now_us) do
    <<_::4, random::62, _::6>> = :crypto.strong_rand_bytes(9)
    <<div(now_us, 1000)::48, 7::4, div(rem(now_us, 1000) * 4096, 1000)::12, 2::2, random::62>>
  end

  def format_id(<<a::binary-4, b::binary-2, c::binary-2, d::binary-2, e::binary-6>>) do
    Enum.map_join([a, b, c, d, e], "-", &Base.encode16(&1, case: :lower))
  end

  def parse_id(<<_::binary-8, ?-, _::binary-4, ?-, _::binary-4, ?-, _::binary-4, ?-, _::binary-12>> = text) do
    text |> String.replace("-", "") |> Base.decode16(case: :mixed)
  end

  def parse_id(_), do: :error

  @doc "As rule R1 has it; iodata, because the payload goes out as it came."
  def to_json(event) do
    quoted = fn value -> :jiffy.encode(value || :null) end
    head = [~s({"id":"), format_id(event.id), ~s(","type":), quoted.(event.type), ~s(,"dedup_id":), quoted.(event.dedup_id)]
    times = [~s(,"created_at":), time(event.created_at_us), ~s(,"persisted_at":), time(event.persisted_at_us)]
    [head, ~s(,"payload":), event.payload, ~s(,"state":"), event.state, ~s("), times, "}"]
  end

  defp time(nil), do: "null"
  defp time(us), do: [?", us |> DateTime.from_unix!(:microsecond) |> DateTime.to_iso8601(), ?"]
end

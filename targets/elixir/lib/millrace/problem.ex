defmodule Millrace.Problem do
  @moduledoc "Every way to say no, as `{:error, problem}`; an answer makes RFC 9457 of it (rule O3)."

  defstruct [:status, :name, :detail, headers: [], more: %{}]

  def new(status, name, detail, more \\ %{}, headers \\ []) do
    {:error, %__MODULE__{status: status, name: name, detail: detail, more: more, headers: headers}}
  end

  def field(name, what), do: new(400, "invalid-field", "'#{name}' #{what}", %{field: name})

  def payload_too_large do
    new(413, "too-large", "the payload is over the limit of #{Millrace.Event.payload_bytes_max()} bytes; send less")
  end

  def unavailable(name, what) do
    new(503, name, "#{what}; nothing was acknowledged; try again after the time in Retry-After", %{}, [{"Retry-After", "1"}])
  end

  def database_unavailable, do: unavailable("database-unavailable", "the database does not answer")
  def no_event, do: new(404, "no-such-event", "this organisation has no event with this id")

  def body(%__MODULE__{} = problem) do
    title = String.replace(problem.name, "-", " ")
    base = %{type: "/problems/#{problem.name}", title: title, status: problem.status, detail: problem.detail}
    :jiffy.encode(Map.merge(base, problem.more))
  end
end

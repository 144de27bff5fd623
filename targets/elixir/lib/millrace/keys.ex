defmodule Millrace.Keys do
  @moduledoc """
  API keys: `mr_live_`, 160 random bits, and a CRC-32 of all before it, by which a typing error is refused without a look-up. Only SHA-256
  hashes are kept: nobody guesses 160 random bits, so a slow hash would protect nothing.
  """
  alias Millrace.{Database, Problem}

  @prefix "mr_live_"
  @cache __MODULE__.Cache
  @cache_entries_max 10_000

  @doc "Makes the cache; it belongs to the caller."
  def init, do: :ets.new(@cache, [:named_table, :public, read_concurrency: true])

  def generate do
    body = @prefix <> Base.encode16(:crypto.strong_rand_bytes(20), case: :lower)
    body <> checksum(body)
  end

  def hash(key), do: :crypto.hash(:sha256, key)

  @doc "The organisation of a key; kept in memory, since a key never changes its owner and none can be revoked."
  def organization_of(<<body::binary-48, sum::binary-8>> = key) do
    if checksum(body) == sum, do: look_up(hash(key)), else: unauthorized()
  end

  def organization_of(_), do: unauthorized()

  defp look_up(hash) do
    with [] <- :ets.lookup(@cache, hash), {:ok, [[organization_id]]} <- Database.ask(:organization, [hash]) do
      if :ets.info(@cache, :size) >= @cache_entries_max, do: :ets.delete_all_objects(@cache)
      :ets.insert(@cache, {hash, organization_id})
      {:ok, organization_id}
    else
      [{_, organization_id}] -> {:ok, organization_id}
      {:ok, []} -> unauthorized()
      {:error, _} -> Problem.database_unavailable()
    end
  end

  defp unauthorized do
    detail = "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; POST /api/keys/generate makes one"
    Problem.new(401, "invalid-api-key", detail, %{}, [{"WWW-Authenticate", "Bearer"}])
  end

  defp checksum(body), do: body |> :erlang.crc32() |> then(&<<&1::32>>) |> Base.encode16(case: :lower)
end

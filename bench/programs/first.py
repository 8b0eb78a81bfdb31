from buntime_sdk import Buntime

with Buntime().sessions.create(ttl=3600) as session:
    print(session.execute("console.log(6 * 7)").stdout, end="")

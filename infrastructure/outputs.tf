output "url" {
  description = "Where users go."
  value       = "https://${var.domain_name}"
}

output "load_balancer" {
  description = "The load balancer's ARN, and the DNS name that domain_name must lead to."
  value       = { arn = aws_lb.main.arn, dns_name = aws_lb.main.dns_name }
}

output "listener_arn" {
  description = "The HTTPS listener, whose weights the rollout sets."
  value       = aws_lb_listener.https.arn
}

output "target_group_arns" {
  description = "Target group of each colour."
  value       = { for color, group in aws_lb_target_group.color : color => group.arn }
}

output "autoscaling_groups" {
  description = "Auto Scaling group of each colour."
  value       = { for color, group in aws_autoscaling_group.color : color => group.name }
}

output "launch_template" {
  description = "The launch template and the number of its newest version, with which the rollout starts a release."
  value       = { id = aws_launch_template.node.id, name = aws_launch_template.node.name, version = aws_launch_template.node.latest_version }
}

output "ami_id" {
  description = "Image of that version, as ami_parameter had it."
  value       = data.aws_ami.node.id
}

output "node_document" {
  description = "The flowagent document that nodes get as user data."
  value       = yamlencode(local.node_document)
}

output "node_role_arn" {
  description = "Role of the nodes."
  value       = aws_iam_role.node.arn
}

output "node_policies" {
  description = "What that role may do, as JSON: `agent` is what flowagent needs, `host` is everything else."
  value       = { agent = data.aws_iam_policy_document.agent.json, host = data.aws_iam_policy_document.host.json }
}

output "database" {
  description = "Where PostgreSQL is, and the entry of Secrets Manager with its master password. Nodes can't read that."
  value = {
    address           = aws_db_instance.main.address
    port              = aws_db_instance.main.port
    name              = aws_db_instance.main.db_name
    username          = aws_db_instance.main.username
    master_secret_arn = aws_db_instance.main.master_user_secret[0].secret_arn
  }
}

output "cache" {
  description = "Where the cache is, and the user whose password the runbook sets."
  value       = { address = aws_elasticache_replication_group.main.primary_endpoint_address, port = 6379, user_id = aws_elasticache_user.default.user_id }
}

output "secret_arns" {
  description = "Entries of Secrets Manager, by their names in `secrets`."
  value       = { for name, secret in aws_secretsmanager_secret.main : name => secret.arn }
}

output "repository_urls" {
  description = "Image repositories, by their names in `repositories`."
  value       = { for name, repository in aws_ecr_repository.main : name => repository.repository_url }
}

output "buckets" {
  description = "Names of the buckets."
  value       = { backups = module.backups.id, assets = module.assets.id, logs = module.logs.id }
}

output "alarms" {
  description = "Names of the alarms that a rollout watches: of one colour, of all, and of a release's nodes."
  value = {
    color   = { for color in local.colors : color => [aws_cloudwatch_metric_alarm.errors[color].alarm_name, aws_cloudwatch_metric_alarm.latency[color].alarm_name, aws_cloudwatch_metric_alarm.unhealthy[color].alarm_name] }
    all     = [aws_cloudwatch_metric_alarm.edge_errors.alarm_name, aws_cloudwatch_metric_alarm.no_node.alarm_name]
    release = { for release, alarm in aws_cloudwatch_metric_alarm.database_errors : release => alarm.alarm_name }
  }
}

output "alarm_topic_arn" {
  description = "SNS topic of the alarms."
  value       = aws_sns_topic.alarms.arn
}

output "nat_addresses" {
  description = "Addresses by which the outside sees the nodes."
  value       = module.network.nat_public_ips
}

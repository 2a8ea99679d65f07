# PostgreSQL and the cache. Neither has an address outside the VPC, and no password of either passes through Terraform.

resource "aws_db_parameter_group" "main" {
  name_prefix = "${local.name}-"
  description = "PostgreSQL 17 of ${local.name}"
  family      = "postgres17"

  # Nobody connects without TLS. PostgreSQL 17 has it by default; said here, nobody switches it off unnoticed.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # Milliseconds; what takes longer is in the log. No statement's values are, beyond what it says itself.
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  # A transaction that somebody left open holds back vacuum for the whole database.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "300000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "main" {
  identifier = local.name

  engine                      = "postgres"
  engine_version              = "17" # AWS picks the minor, and retires minors within a year or so
  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = false
  instance_class              = local.database_instance_class
  parameter_group_name        = aws_db_parameter_group.main.name
  ca_cert_identifier          = "rds-ca-rsa2048-g1"

  allocated_storage     = var.database_storage_gib.initial
  max_allocated_storage = var.database_storage_gib.max
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.data.arn

  db_name  = var.database_name
  username = var.database_username
  # RDS makes the password, keeps it in Secrets Manager and changes it each week; the state never has it.
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.data.key_id

  multi_az               = local.database_multi_az
  db_subnet_group_name   = module.network.database_subnet_group_name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false

  backup_retention_period   = var.database_backup_days
  backup_window             = "02:00-03:00"         # UTC, before the maintenance
  maintenance_window        = "sun:03:30-sun:04:30" # UTC; a factory's quietest hour is the operator's to know
  copy_tags_to_snapshot     = true
  delete_automated_backups  = !local.production
  skip_final_snapshot       = !local.production
  final_snapshot_identifier = local.production ? "${local.name}-final" : null
  deletion_protection       = local.deletion_protection

  database_insights_mode                = "standard"
  performance_insights_enabled          = true
  performance_insights_kms_key_id       = aws_kms_key.data.arn
  performance_insights_retention_period = 7 # days, which are free
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.database_monitoring.arn
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]

  tags = { Name = local.name }

  # RDS would make the log groups itself, without an end to what they keep.
  depends_on = [aws_cloudwatch_log_group.database]
}

resource "aws_elasticache_subnet_group" "main" {
  name        = local.name
  description = "Database subnets of ${local.name}"
  subnet_ids  = module.network.database_subnets
}

# The user that a client is who sends a password alone. It is off and without a password until the runbook gives it one
# of Secrets Manager's: Terraform has no way to set a password that doesn't leave it in the state. Users and groups of the
# kind "redis" serve Valkey as well; those of the kind "valkey" must have a password from the beginning.
resource "aws_elasticache_user" "default" {
  user_id       = "${local.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"

  authentication_mode {
    type = "no-password-required"
  }

  lifecycle {
    ignore_changes = [access_string, authentication_mode, no_password_required, passwords]
  }
}

resource "aws_elasticache_user_group" "main" {
  user_group_id = local.name
  engine        = "redis"
  user_ids      = [aws_elasticache_user.default.user_id]
}

resource "aws_elasticache_replication_group" "main" {
  replication_group_id = "${var.project}-cache-${var.environment}"
  description          = "Job queue of ${local.name}"

  engine                     = "valkey"
  engine_version             = var.cache_version
  auto_minor_version_upgrade = true
  node_type                  = var.cache_node_type
  port                       = 6379

  # A primary and a replica that takes its place, in two zones; a single node elsewhere.
  num_cache_clusters         = local.production ? 2 : 1
  automatic_failover_enabled = local.production
  multi_az_enabled           = local.production

  subnet_group_name  = aws_elasticache_subnet_group.main.name
  security_group_ids = [aws_security_group.cache.id]

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.data.arn
  user_group_ids             = [aws_elasticache_user_group.main.user_group_id]

  # The queue can be made anew from the database, where the state of each job is: a day is enough.
  snapshot_retention_limit = local.production ? 1 : 0
  snapshot_window          = "01:00-02:00"
  maintenance_window       = "sun:04:30-sun:05:30"

  dynamic "log_delivery_configuration" {
    for_each = aws_cloudwatch_log_group.cache

    content {
      destination      = log_delivery_configuration.value.name
      destination_type = "cloudwatch-logs"
      log_format       = "json"
      log_type         = log_delivery_configuration.key
    }
  }

  tags = { Name = local.name }
}

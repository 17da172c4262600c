# Migrations by Rails' ActiveRecord, on the database named by the first argument; one step after each line read.
require "active_record"

ActiveRecord::Base.establish_connection(adapter: "sqlite3", database: ARGV[0], timeout: 5000)
ActiveRecord::Migration.verbose = false

class Customer < ActiveRecord::Base; end

STEPS = [
  ->(m) {
    m.create_table(:customers) { |t| t.string :name, null: false; t.string :mail; t.timestamps }
    m.create_table(:orders) { |t| t.references :customer, foreign_key: true; t.decimal :total, precision: 8, scale: 2 }
  },
  ->(m) { m.add_column :customers, :points, :integer, default: 5, null: false },
  ->(m) { m.change_column :customers, :name, :text, null: true },
  ->(m) { m.rename_column :customers, :mail, :email },
  ->(m) { m.add_index :customers, :email, unique: true },
  ->(m) { m.change_column_default :orders, :total, from: nil, to: 9.5 },
  ->(m) { m.change_column_null :orders, :total, false, 0 },
  ->(m) { m.remove_foreign_key :orders, :customers },
  ->(m) { m.remove_column :customers, :points },
  ->(m) { m.rename_table :orders, :purchases },
  ->(m) { m.drop_table :purchases },
].freeze

STEPS.each_with_index do |step, n|
  break unless $stdin.gets
  migration = Class.new(ActiveRecord::Migration[6.1])
  migration.define_method(:up) { step.call(self) }
  migration.new.exec_migration(ActiveRecord::Base.connection, :up)
  Customer.reset_column_information
  mail = Customer.column_names.include?("mail") ? :mail : :email
  Customer.create!(name: "customer #{n}", mail => "#{n}@example.org")
  Customer.where("id % 2 = 0").update_all(name: "even #{n}")
  %w[orders purchases].each do |table|
    next unless ActiveRecord::Base.connection.table_exists?(table)
    ActiveRecord::Base.connection.execute("INSERT INTO #{table}(total) VALUES (#{n}.25), (1)")
    ActiveRecord::Base.connection.execute("DELETE FROM #{table} WHERE id = #{n}")
  end
  puts "step #{n}"
  $stdout.flush
end
